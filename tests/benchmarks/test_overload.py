"""What the benchmark of the edge counts: what was answered, and what was turned away in order."""

import asyncio

from benchmarks.overload import Answers, Client
from tests.api.conftest import broker, shared, template  # noqa: F401


def test_requests_are_counted_by_what_became_of_them(shared) -> None:  # noqa: F811
    url = str(shared.http.base_url).rstrip("/")

    async def ask(path: str) -> Answers:
        client = Client(url, "GET", path)
        answers = await client.at_rate(20, 0.5)
        client.close()
        return answers

    figures = asyncio.run(ask("/healthz")).figures(0.5)
    assert (figures["offered_per_s"], figures["answered_per_s"]) == (20, 20)
    assert (figures["shed"], figures["unanswered"]) == (0, 0)
    assert figures["p99_ms"] >= figures["p50_ms"] > 0
    assert asyncio.run(ask("/nowhere")).figures(0.5)["unanswered"] == 10
