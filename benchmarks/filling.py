"""A PostgreSQL database with the rows of a service that has run for a year and more.

The server makes the rows itself (`generate_series`), with the lengths and the spread that real ones
have: jobs of eight tenants, of which one has half, over 400 days, so that a part is past the year
for which a service keeps things. Secondary indexes are built after the rows, as a restore does.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, text

from benchmarks.small_job import SPEC
from benchmarks.timing import say
from jobstore.database import Database
from jobstore.dialects import reading

BIG, TIDY = "big", "team-0"
"""The tenant with half of all jobs; and one whose events and artifacts of over a year are gone."""

WAITING, AT_WORK = 300, 20
"""Jobs that wait and jobs that workers have, whatever has ended."""

DAYS = 400
_BATCH = 100_000
_TOLD = ("idempotency_keys", "webhooks", "webhook_deliveries")

# What a job's row weighs is mostly these two documents.
_SPEC = json.dumps(SPEC | {"seed": 1})
_HEADLINE = json.dumps({f"figure_{number:02}": number / 7 for number in range(22)})

# {n} is a row's number, counted from 1 for the oldest.
_TENANT = f"(CASE WHEN {{n}} % 2 = 0 THEN '{BIG}' ELSE 'team-' || ({{n}} / 2) % 7 END)"
# {today} is the same moment in all statements: ids are made of it.
_BORN = "({today} - interval '{days} days' * (1 - {{n}}::float8 / {jobs}))"
_ID = (
    "('{prefix}_' || lpad(to_hex((extract(epoch from {born}) * 1000)::bigint), 12, '0')"
    " || '7' || substr(md5({{n}}::text), 1, 19))"
)


def _lately() -> datetime:
    # The newest jobs took an hour, and have ended.
    return datetime.now(UTC) - timedelta(hours=2)


@dataclass(frozen=True)
class Size:
    """How many rows there are to be."""

    jobs: int
    events_per_job: int = 10
    today: str = field(default_factory=lambda: f"timestamptz '{_lately()}'", compare=False)

    @property
    def uploads(self) -> int:
        """Models, and as many data sets: jobs come in batches on the same files."""
        return 2 * max(1, self.jobs // 1000)


def _sql(prefix: str, size: Size) -> tuple[str, str]:
    """The moment of the n-th job, and an id that was made then."""
    born = _BORN.format(today=size.today, days=DAYS, jobs=size.jobs)
    return born, _ID.format(prefix=prefix, born=born)


def fill(database: Database, size: Size, *, minutes: float, leave_gb: float) -> Size:
    """Fill a migrated, empty database; stops early at the time's or the disk's limit.

    Returns the size that it has then.
    """
    began = time.monotonic()
    with reading(database.engine).connect() as connection:
        # Ended jobs are written as such, which the state machine's triggers forbid.
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text("SET synchronous_commit = off"))
        connection.execute(text("SET maintenance_work_mem = '1GB'"))
        data = Path(connection.execute(text("SHOW data_directory")).scalar_one())
        _uploads(connection, size)
        with _without_indexes(connection):
            done = 0
            while done < size.jobs:
                last = min(done + _BATCH, size.jobs)
                _jobs(connection, size, done + 1, last)
                done = last
                took, free = time.monotonic() - began, shutil.disk_usage(data).free / 1e9
                if size.jobs > _BATCH:
                    say(f"{done:,} of {size.jobs:,} jobs, {took:.0f} s, {free:.0f} GB free")
                # The indexes take as much time as a third of the rows, and as much room.
                if took > 60 * minutes * 0.7 or free < leave_gb + 0.02 * done * 1e-4:
                    say("the limit of time or disk is reached")
                    break
            _rest(connection, size, done)
            say("indexes")
        connection.execute(text("SET session_replication_role = origin"))
        for table in ("jobs", "events", "artifacts", "blobs", "models", "datasets", *_TOLD):
            connection.execute(text(f"VACUUM (ANALYZE, FREEZE) {table}"))
        connection.execute(text("CHECKPOINT"))
    say(f"filled in {time.monotonic() - began:.0f} s")
    return Size(done, size.events_per_job)


@contextmanager
def _without_indexes(connection: Connection) -> Iterator[None]:
    """Drop the indexes that hold no constraint, and build them again afterwards."""
    found = connection.execute(
        text(
            "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i "
            "JOIN pg_class c ON c.oid = i.indrelid "
            "WHERE c.relnamespace = 'public'::regnamespace AND NOT i.indisunique"
        )
    ).all()
    for name, _ in found:
        connection.execute(text(f"DROP INDEX {name}"))
    yield
    for _, definition in found:
        connection.execute(text(definition))


def _uploads(connection: Connection, size: Size) -> None:
    born = _BORN.format(today=size.today, days=DAYS, jobs=size.uploads).format(n="n")
    tenants = f"SELECT '{BIG}' UNION SELECT 'team-' || g FROM generate_series(0, 6) AS g"
    connection.execute(
        text(f"INSERT INTO tenants (id, created_at) SELECT t.id, now() FROM ({tenants}) AS t(id)")
    )
    sha = "md5('{0}' || n) || md5('{0}.' || n)"
    for table, prefix, more, values in (
        ("models", "mdl", "format, architecture", "'safetensors', 'digits_cnn'"),
        ("datasets", "dst", "", ""),
    ):
        more, values = (f", {more}", f", {values}") if more else ("", "")
        connection.execute(
            text(
                f"INSERT INTO {table} (id, tenant_id, created_at, filename, summary, sha256, bytes"
                f"{more}) SELECT '{prefix}_' || lpad(n::text, 32, '0'), {_TENANT.format(n='n')},"
                f" {born}, 'file', '{{}}', {sha.format(table)}, 1000000{values}"
                f" FROM generate_series(1, {size.uploads}) AS n"
            )
        )
        connection.execute(
            text(
                "INSERT INTO blobs (tenant_id, sha256, bytes, touched_at) SELECT tenant_id, sha256,"
                f" bytes, created_at FROM {table} ORDER BY tenant_id, sha256"
            )
        )


def _jobs(connection: Connection, size: Size, first: int, last: int) -> None:
    born, job_id = (part.format(n="n") for part in _sql("job", size))
    tenant = _TENANT.format(n="n")
    # An upload of the same tenant: its number is as odd or even as the job's.
    upload = f"lpad((1 + ((n - 1) / 1000 * 2 + (n - 1) % 2) % {size.uploads})::text, 32, '0')"
    ends = {"cancelled": "n % 40 IN (7, 8)", "failed": "n % 20 IN (3, 4)"}
    whens = " ".join(f"WHEN {when} THEN '{end}'" for end, when in ends.items())
    state = f"CASE {whens} ELSE 'succeeded' END"
    columns = {
        "id": job_id,
        "tenant_id": tenant,
        "name": "'job ' || n",
        "spec": f"'{_SPEC}'",
        "model_id": f"'mdl_' || {upload}",
        "dataset_id": f"'dst_' || {upload}",
        "state": state,
        "stage": "'evaluating'",
        "progress": "1",
        "attempt": "1",
        "failed_attempts": "0",
        "max_attempts": "3",
        "time_limit_s": "86400",
        "run_seconds": "3000",
        "last_event_seq": str(size.events_per_job),
        "created_at": born,
        "queued_at": born,
        "started_at": f"{born} + interval '1 second'",
        "finished_at": f"{born} + interval '1 hour'",
        "error_code": f"CASE {state} WHEN 'failed' THEN 'out_of_memory' END",
        "headline": f"CASE {state} WHEN 'succeeded' THEN '{_HEADLINE}'::json END",
    }
    _insert(connection, "jobs", columns, f"generate_series({first}, {last}) AS n")
    kept = f"NOT ({tenant} = '{TIDY}' AND {born} < {size.today} - interval '365 days')"
    progress = '{"stage": "robust_training", "epoch": 3, "epochs": 30, "progress": 0.25}'
    events = {
        "job_id": job_id,
        "seq": "s",
        "tenant_id": tenant,
        "time": f"{born} + interval '1 minute' * s",
        "type": "CASE WHEN s IN (1, 2, 3, 10) THEN 'state' ELSE 'progress' END",
        "attempt": "1",
        "data": f"'{progress}'::json",
    }
    numbers = f"generate_series({first}, {last}) AS n"
    series = f"{numbers}, generate_series(1, {size.events_per_job}) AS s WHERE {kept}"
    _insert(connection, "events", events, series)
    artifacts = {
        "job_id": job_id,
        "name": "'model.atmc'",
        "tenant_id": tenant,
        "created_at": f"{born} + interval '1 hour'",
        "media_type": "'application/octet-stream'",
        "sha256": "md5('artifact' || n) || md5('artifact.' || n)",
        "bytes": "10000",
    }
    made = f"{numbers} WHERE {kept} AND {state} = 'succeeded'"
    _insert(connection, "artifacts", artifacts, made)
    blobs = {
        "tenant_id": tenant,
        "sha256": artifacts["sha256"],
        "bytes": "10000",
        "touched_at": artifacts["created_at"],
    }
    _insert(connection, "blobs", blobs, f"{made} ORDER BY 1, 2")


def _rest(connection: Connection, size: Size, jobs: int) -> None:
    """What waits and what is at work; answers to be repeated; webhooks and what they were told."""
    # A share of a day's requests have a key; every fifth job has told a webhook.
    requests, deliveries = jobs // 10, jobs // 5
    common = {
        "tenant_id": _TENANT.format(n="n"),
        "spec": f"'{_SPEC}'",
        "model_id": "'mdl_' || lpad('1', 32, '0')",
        "dataset_id": "'dst_' || lpad('1', 32, '0')",
        "failed_attempts": "0",
        "max_attempts": "3",
        "time_limit_s": "86400",
        "run_seconds": "0",
        "last_event_seq": "0",
        "created_at": "now()",
        "queued_at": "now()",
        "progress": "0",
    }
    new_id = "'job_f' || {0} || lpad(n::text, 30, '0')"
    waiting = {"id": new_id.format(0), "state": "'queued'", "attempt": "0"}
    held = {
        "id": new_id.format(1),
        "state": "'running'",
        "attempt": "1",
        "owner": "'worker-' || n",
        "lease_expires_at": "now() + interval '10 hours'",
    }
    for columns, number in ((waiting, WAITING), (held, AT_WORK)):
        _insert(connection, "jobs", common | columns, f"generate_series(1, {number}) n")
    answers = {
        "tenant_id": _TENANT.format(n="n"),
        "scope": "'POST /jobs'",
        "key": "md5(n::text)",
        # A hundredth is past its day.
        "created_at": f"now() - interval '1 second' * 87273 * n / {max(1, requests)}",
        "fingerprint": "md5(n::text) || md5(n::text)",
        "holder": "md5(n::text)",
        "status": "202",
        "headers": "'{}'::json",
        "body": f"'{_SPEC}'::json",
    }
    _insert(connection, "idempotency_keys", answers, f"generate_series(1, {requests}) n")
    webhooks = {
        "id": "'whk_' || lpad(n::text, 32, '0')",
        "tenant_id": _TENANT.format(n="n"),
        "created_at": "now()",
        "url": "'https://hooks.example.com/'",
        "events": "'job.succeeded job.failed'",
        "secret": "'sealed'",
        "failed_deliveries": "0",
    }
    _insert(connection, "webhooks", webhooks, "generate_series(1, 14) n")
    born, job_id = (part.format(n="(n * 5)") for part in _sql("job", size))
    told = {
        "id": "'msg_' || lpad(n::text, 32, '0')",
        "tenant_id": _TENANT.format(n="n"),
        "webhook_id": "'whk_' || lpad((1 + (n - 1) % 14)::text, 32, '0')",
        "job_id": job_id,
        "created_at": born,
        "seq": "10",
        "type": "'job.succeeded'",
        "data": '\'{"state": "succeeded"}\'::json',
        "attempts": "1",
        "failures": "0",
        # The newest are still to be delivered.
        "due_at": f"CASE WHEN n > {deliveries} - 30 THEN now() END",
        "delivered_at": f"CASE WHEN n <= {deliveries} - 30 THEN {born} END",
    }
    _insert(connection, "webhook_deliveries", told, f"generate_series(1, {deliveries}) n")


def _insert(connection: Connection, table: str, columns: dict[str, str], source: str) -> None:
    values = ", ".join(columns.values())
    statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {source}"
    connection.execute(text(statement))
