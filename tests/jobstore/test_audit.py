"""The audit log: with its change or not at all, chained, and found out when it was changed."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, text, update

from atmc_client.audit import Broken, verify
from jobstore import audit
from jobstore.database import Database
from jobstore.dialects import now
from jobstore.tables import AuditChain, AuditRecord, Tenant
from jobstore.tenancy import Origin
from jobstore.tenants import get_or_create_tenant

BY = Origin("key_1", "192.0.2.7", "r-1")
DAY = 86_400.0


def append(database: Database, count: int = 1, tenant: str = "default") -> None:
    with database.write() as session:
        get_or_create_tenant(session, tenant)
    for number in range(count):
        with database.of(tenant, BY).write() as session:
            audit.record(session, "job.create", f"job_{number}", bytes=number, name="à\u2028")


def seal(database: Database) -> int:
    with database.write() as session:
        return audit.seal(session)


def export(database: Database) -> list[str]:
    """The lines of `GET /audit?format=jsonl`."""
    lines, heads = [], []
    with database.read() as session:
        for chain in audit.list_chains(session):
            after = chain.expired_seq
            while rows := audit.records_of(session, chain, audit.Filter(), after):
                lines += [json.dumps(audit.document_of(row)) for row in rows]
                after = rows[-1].seq
            head = {"tenant": chain.tenant_id, "seq": chain.seq, "hash": chain.hash}
            heads.append(json.dumps({"head": head}))
    return lines + heads


def heads(database: Database) -> list[dict[str, object]]:
    return [json.loads(line)["head"] for line in export(database) if '"head"' in line]


def test_a_record_says_who_did_what_from_where(database: Database) -> None:
    append(database)
    assert (seal(database), seal(database)) == (1, 0)
    with database.read() as session:
        (row,) = audit.list_records(session, audit.Filter()).records
        moment = now(session)
    said = audit.document_of(row)
    assert (said["actor"], said["address"], said["request"]) == ("key_1", "192.0.2.7", "r-1")
    assert (said["action"], said["object"], said["tenant"]) == ("job.create", "job_0", "default")
    assert (said["outcome"], said["detail"]) == ("done", {"bytes": 0, "name": "à\u2028"})
    assert (said["seq"], said["previous"]) == (1, audit.GENESIS)
    assert abs(moment - row.time) < timedelta(seconds=10)


def test_there_is_no_record_without_its_change_and_no_change_without_its_record(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(fails: bool) -> None:
        with database.of(None, BY).write() as session:
            session.add(Tenant(id="red"))
            audit.record(session, "tenant.create", "red", tenant="red")
            if fails:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        change(fails=True)
    with database.read() as session:
        assert session.scalars(select(AuditRecord)).all() == []
        assert session.get(Tenant, "red") is None
    # A record that cannot be written takes the change with it.
    monkeypatch.setattr(audit, "new_audit_id", lambda: None)
    with pytest.raises(Exception, match="audit"):
        change(fails=False)
    with database.read() as session:
        assert session.get(Tenant, "red") is None


def test_each_tenant_has_a_chain_that_holds(database: Database) -> None:
    append(database, 3, "red")
    append(database, 2, "blue")
    assert seal(database) == 5
    append(database, 2, "red")
    assert seal(database) == 2
    chains = verify(export(database), heads(database))
    assert {tenant: chain.seq for tenant, chain in chains.items()} == {"red": 5, "blue": 2}


Tamper = Callable[[Database], None]


def run(database: Database, statement: object) -> None:
    with database.engine.begin() as connection:
        connection.execute(statement)


def of(seq: int) -> object:
    return AuditRecord.seq == seq


def change(database: Database) -> None:
    run(database, update(AuditRecord).where(of(3)).values(actor="somebody-else"))


def change_detail(database: Database) -> None:
    run(database, update(AuditRecord).where(of(3)).values(detail={"bytes": 99}))


def change_and_hash_anew(database: Database) -> None:
    change(database)
    with database.write() as session:
        row = session.scalars(select(AuditRecord).where(of(3))).one()
        row.hash = audit.hash_of(audit.document_of(row))


def delete_one(database: Database) -> None:
    run(database, delete(AuditRecord).where(of(3)))


def delete_the_first(database: Database) -> None:
    run(database, delete(AuditRecord).where(AuditRecord.seq <= 2))


def delete_and_number_anew(database: Database) -> None:
    delete_one(database)
    for seq in (4, 5):
        run(database, update(AuditRecord).where(of(seq)).values(seq=seq - 1))
    run(database, update(AuditChain).values(seq=4))


def reorder(database: Database) -> None:
    for before, after in ((2, 99), (3, 2), (99, 3)):
        run(database, update(AuditRecord).where(of(before)).values(seq=after))


def cut_the_end(database: Database) -> None:
    run(database, delete(AuditRecord).where(AuditRecord.seq >= 4))


@pytest.mark.parametrize(
    "tamper",
    [
        change,
        change_detail,
        change_and_hash_anew,
        delete_one,
        delete_the_first,
        delete_and_number_anew,
        reorder,
        cut_the_end,
    ],
)
def test_whoever_changes_the_log_is_found_out(database: Database, tamper: Tamper) -> None:
    append(database, 5)
    seal(database)
    verify(export(database))
    tamper(database)
    with pytest.raises(Broken):
        verify(export(database))


def cut_and_move_the_head(database: Database) -> None:
    cut_the_end(database)
    with database.write() as session:
        last = session.scalars(select(AuditRecord).where(of(3))).one()
        session.execute(update(AuditChain).values(seq=3, hash=last.hash))


def write_all_anew(database: Database) -> None:
    """A chain that holds by itself, of other records."""
    run(database, update(AuditRecord).values(seq=None, previous=None, hash=None, actor="x"))
    run(database, delete(AuditChain))
    seal(database)


@pytest.mark.parametrize("tamper", [cut_and_move_the_head, write_all_anew])
def test_a_head_that_was_kept_finds_out_who_owns_the_database(
    database: Database, tamper: Tamper
) -> None:
    append(database, 5)
    seal(database)
    kept = heads(database)
    tamper(database)
    verify(export(database))
    with pytest.raises(Broken, match="head that was kept"):
        verify(export(database), kept)


def test_an_export_that_was_changed_is_found_out(database: Database) -> None:
    append(database, 4)
    seal(database)
    lines = export(database)
    moved = [lines[1], lines[0], *lines[2:]]
    for changed in (lines[:-1], lines[:2] + lines[3:], moved, [*lines, lines[0]], ["x"], ["[]"]):
        with pytest.raises(Broken):
            verify(changed)
    verify(lines[:-1], part=True)
    with pytest.raises(Broken, match="moved or repeated"):
        verify(moved, part=True)


def test_what_expires_leaves_a_chain_that_holds(database: Database) -> None:
    append(database, 6)
    seal(database)
    kept = heads(database)
    with database.write() as session:
        for row in session.scalars(select(AuditRecord).where(AuditRecord.seq <= 4)):
            row.time -= timedelta(days=30)
            row.hash = None
        # As if they had been made then.
        session.flush()
        session.execute(update(AuditRecord).values(seq=None, hash=None, previous=None))
        session.execute(delete(AuditChain))
    seal(database)
    verify(export(database))
    keeper = database.of(None, Origin(audit.KEEPER))
    for keep_s, count in ((40 * DAY, 0), (29.5 * DAY, 0), (10 * DAY, 4), (10 * DAY, 0)):
        with keeper.write() as session:
            assert audit.expire(session, keep_s) == count, keep_s
    seal(database)
    (chain,) = verify(export(database)).values()
    assert (chain.first, chain.seq) == (5, 7)
    # A head of before is past what is kept: it says nothing of the rest.
    verify(export(database), [kept[0] | {"seq": 3}])
    with database.read() as session:
        (said,) = audit.list_records(session, audit.Filter(action="audit")).records
        assert (said.actor, said.detail["seq"]) == ("keeper", 4)
    # Whoever deletes more by hand is found out all the same.
    run(database, delete(AuditRecord).where(of(5)))
    with pytest.raises(Broken, match="no record in it says"):
        verify(export(database))


def test_nobody_waits_for_another_s_record(database: Database, dialect: str) -> None:
    """Two transactions of one tenant append at the same time, and a third seals meanwhile."""
    if dialect == "sqlite":
        pytest.skip("there one transaction writes at a time")
    done = threading.Event()

    def other() -> None:
        append(database)
        seal(database)
        done.set()

    with database.of("default", BY).write() as session:
        audit.record(session, "job.create", "first")
        thread = threading.Thread(target=other)
        thread.start()
        assert done.wait(10)
    thread.join()
    # The first to begin is the last in the chain, and misses nothing.
    assert seal(database) == 1
    verify(export(database))
    with database.read() as session:
        order = select(AuditRecord.object).order_by(AuditRecord.seq)
        assert session.scalars(order).all() == ["job_0", "first"]


def test_sealers_at_once_make_one_chain(database: Database) -> None:
    append(database, 40)
    threads = [threading.Thread(target=seal, args=(database,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert verify(export(database))["default"].seq == 40


def test_records_are_found_by_time_actor_and_action(database: Database) -> None:
    append(database, 2, "red")
    with database.of(None, Origin("operator")).write() as session:
        audit.record(session, "key.create", "key_2", tenant="red")
        audit.record(session, "key.revoke", "key_2", tenant="red", outcome=audit.REFUSED)
        audit.record(session, "keys.odd", None, tenant="blue")
    seal(database)

    def count(whose: Database = database, **which: object) -> int:
        with whose.read() as session:
            return len(audit.list_records(session, audit.Filter(**which)).records)

    assert count() == 5
    assert count(actor="operator") == 3
    assert (count(action="key"), count(action="key.create"), count(action="key%")) == (2, 1, 0)
    assert (count(outcome="refused"), count(tenant="blue")) == (1, 1)
    with database.read() as session:
        moment = now(session, 60)
    assert (count(since=moment), count(until=moment)) == (0, 5)
    # A tenant's session sees its own, whatever it asks for.
    assert (count(database.of("red")), count(database.of("red"), tenant="blue")) == (4, 0)
    with database.read() as session:
        first = audit.list_records(session, audit.Filter(), limit=2)
        rest = audit.list_records(session, audit.Filter(), limit=10, cursor=first.next)
    assert len({row.id for row in (*first.records, *rest.records)}) == 5
    assert rest.next is None


def test_a_session_of_nobody_s_appends_nothing(database: Database) -> None:
    with pytest.raises(KeyError), database.write() as session:
        audit.record(session, "job.create", "job_1")
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM audit")) == 0
