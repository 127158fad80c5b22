"""The client of the benchmark counts what was answered, and what was turned away in order."""

import asyncio

import pytest

from benchmarks.overload import Answers, Client

ANSWERS = {
    b"/job": b"200 OK",
    b"/busy": b"503 Service Unavailable\r\nRetry-After: 1",
    b"/away": b"503 Service Unavailable",
}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer by the path, and close each connection after three answers without saying so."""
    for _ in range(3):
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            break
        status = ANSWERS[request.split(b" ")[1]]
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
    writer.close()


async def ask(path: str) -> Answers:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        client = Client(f"http://127.0.0.1:{port}", "GET", path)
        answers = await client.at_rate(40, 0.25)
        client.close()
        return answers


@pytest.mark.parametrize(
    ("path", "answered", "shed", "unanswered"),
    [("/job", 10, 0, 0), ("/busy", 0, 10, 0), ("/away", 0, 0, 10)],
)
def test_requests_are_counted_by_what_became_of_them(
    path: str, answered: int, shed: int, unanswered: int
) -> None:
    answers = asyncio.run(ask(path))
    assert (len(answers.answered), len(answers.shed)) == (answered, shed)
    assert answers.unanswered == unanswered
    assert answers.lasted_s > 0.2
    # What comes after the last has been sent is not counted as if it had come before.
    answers.lasted_s = 0.5
    figures = answers.figures(0.25)
    assert (figures["offered_per_s"], figures["answered_per_s"]) == (40, 2 * answered)
    assert figures["shed"] == shed / 10
