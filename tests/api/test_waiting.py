"""Those who wait for a job's state."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import event, text

from tests.api.conftest import Service, assert_problem, claimed, wait_until


def test_a_long_poll_answers_at_the_change_of_state(service: Service) -> None:
    job = service.send_job().json()
    answers: list[tuple[float, dict[str, Any]]] = []

    def wait() -> None:
        answer = service.http.get(job["links"]["self"], params={"wait": 30}).json()
        answers.append((time.monotonic(), answer))

    waiters = [threading.Thread(target=wait) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    wait_until(lambda: len(service.services.watcher._waiters) == 8)
    assert answers == []
    changed_at = time.monotonic()
    claimed(service)
    for waiter in waiters:
        waiter.join(timeout=60)
    assert [answer["state"] for _, answer in answers] == ["validating"] * 8
    assert max(at for at, _ in answers) - changed_at < 2


def test_all_who_wait_cost_one_query_a_tick(service: Service) -> None:
    links = [service.send_job().json()["links"]["self"] for _ in range(3)]
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(service.database.engine, "before_cursor_execute", record)
    with ThreadPoolExecutor(24) as pool:
        polls = [pool.submit(service.http.get, links[n % 3], params={"wait": 1}) for n in range(24)]
    assert all(poll.result().json()["state"] == "queued" for poll in polls)
    polled = [statement for statement in statements if "IN (" in statement]
    # A tick is 0.2 s; each of the 24 asks twice more, at its start and at its end.
    assert 2 <= len(polled) <= 12


def test_who_waits_is_told_when_the_database_fails(service: Service) -> None:
    job = service.send_job().json()
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(service.http.get, job["links"]["self"], params={"wait": 30})
        wait_until(lambda: service.services.watcher._waiters)
        with service.database.write() as session:
            session.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
        assert_problem(poll.result(timeout=60), 500, "internal_error")


def test_a_long_poll_ends_in_time_and_leaves_no_poller(service: Service) -> None:
    job = service.send_job().json()
    start = time.monotonic()
    answer = service.http.get(job["links"]["self"], params={"wait": 1}).json()
    assert answer["state"] == "queued"
    assert 0.9 < time.monotonic() - start < 5
    poller = service.services.watcher._poller
    assert poller is not None
    wait_until(poller.done)


def test_a_long_poll_of_a_final_job_answers_at_once(service: Service) -> None:
    job = service.send_job().json()
    service.http.post(job["links"]["cancel"])
    start = time.monotonic()
    answer = service.http.get(job["links"]["self"], params={"wait": 30}).json()
    assert answer["state"] == "cancelled"
    assert time.monotonic() - start < 5
