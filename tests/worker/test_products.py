"""Products: made once by whoever asks first, whoever dies; and what a child cannot do with them."""

import threading
from pathlib import Path
from typing import Any

from jobstore import leases, products
from jobstore.objects import blob_key
from jobstore.tables import Product, Tenant
from tests.worker.conftest import STAND_IN
from worker.supervisor import Supervisor

KEY = "ab" * 32
SHARE: dict[str, Any] = {"do": "share", "key": KEY, "content": "made once"}


def product(bench) -> Product | None:
    with bench.database.read() as session:
        return session.get(Product, ("default", KEY))


def test_what_one_job_made_another_takes_and_it_goes_with_the_last_of_them(bench, run) -> None:
    first, second = bench.add_job(SHARE), bench.add_job(SHARE)
    run()
    made = product(bench)
    assert made is not None
    assert (made.stage, made.seconds, made.made_by) == ("training", 2.5, first)
    assert bench.store.exists(blob_key(made.sha256))
    run()
    assert bench.job(first).headline == {"got": None}
    assert bench.job(second).headline == {"got": "made once", "from": first, "seconds": 2.5}


def test_two_workers_that_need_it_at_once_make_it_once(bench, supervisor) -> None:
    spec = SHARE | {"make_s": 1.5}
    jobs = [bench.add_job(spec), bench.add_job(spec)]
    other = Supervisor(
        bench.settings.model_copy(update={"sandbox": "off"}),
        bench.database,
        bench.store,
        device="cpu",
        shutdown=threading.Event(),
        child_command=STAND_IN,
    )

    def work(supervisor: Supervisor) -> None:
        with bench.database.write() as session:
            claimed = leases.claim(session, f"worker {id(supervisor)}", lease_s=30)
        assert claimed is not None
        supervisor.run(*claimed)

    threads = [threading.Thread(target=work, args=[each]) for each in (supervisor, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.children.close()
    got = [bench.job(each).headline["got"] for each in jobs]
    assert sorted(map(str, got)) == ["None", "made once"]
    told = [event.data for each in jobs for event in bench.events(each) if event.type == "metric"]
    assert [each["makes"] for each in told if "makes" in each] == [KEY]
    maker = jobs[got.index(None)]
    assert {each["waits_for"] for each in told if "waits_for" in each} == {maker}


def test_of_a_job_that_died_or_could_not_be_used_the_next_makes_it(bench, run) -> None:
    lost = bench.add_job(SHARE, max_attempts=1)
    with bench.database.write() as session:
        claimed = leases.claim(session, "lost", lease_s=30)
        assert claimed is not None
        assert products.ask(session, claimed[1], KEY, "training") is None
        # Its worker gives it back; the claim does not hold any longer.
        leases.release(session, claimed[1])
    run()
    assert bench.job(lost).headline == {"got": None}
    made = product(bench)
    # Its bytes are others than those that were made.
    path = Path(bench.settings.home, "other")
    path.write_text("not what was made")
    bench.store.put_file(blob_key(made.sha256), path)
    again = bench.add_job(SHARE)
    run()
    assert bench.job(again).headline == {"got": None}
    refused = bench.add_job(SHARE | {"refuse": True})
    run()
    assert bench.job(refused).headline == {"got": None}


def test_a_tenant_without_room_keeps_no_product_and_its_job_goes_on(bench, run) -> None:
    with bench.database.write() as session:
        session.get_one(Tenant, "default").max_stored_bytes = 14
    job_id = bench.add_job(SHARE)
    run()
    assert bench.job(job_id).state == "succeeded"
    assert product(bench) is None


def test_a_child_has_nothing_read_that_lies_elsewhere(bench, run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    job_id = bench.add_job(SHARE | {"link": str(secret), "then_s": 5}, max_attempts=1)
    run()
    job = bench.job(job_id)
    assert (job.state, job.error_code) == ("failed", "child_crashed")
    assert "cannot be read" in job.error_message
    assert product(bench).sha256 is None
