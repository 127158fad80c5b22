"""Files that lie elsewhere: named by URI, fetched once, and results put there."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import obstore
import pytest
from obstore.store import S3Store
from pydantic import SecretStr

from api.sources import carrying
from atmc_spec.datasets.kinds import is_tar
from jobstore import transfers
from jobstore.connections import Connections
from jobstore.settings import Settings
from jobstore.tables import Base, Transfer
from jobstore.tenancy import Origin
from tests.api import files
from tests.api.conftest import (
    ADMIN_KEY,
    Service,
    assert_problem,
    claimed,
    finished_job,
    running,
    settings_in,
    wait_until,
)
from tests.api.web import Web, serving_web
from tests.buckets import VersionedBucket

MODEL = files.safetensors_file()
SECRET, TOKEN = "secret-of-the-house", "token-of-the-web"
ARCHITECTURE = {"architecture": files.ARCHITECTURE}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with serving_web(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture(scope="module")
def lake(
    tmp_path_factory: pytest.TempPathFactory,
    template: Path,
    broker: str,
    s3: dict[str, str],
    web: Web,
) -> Iterator["Lake"]:
    """A service with connections to a bucket and to a web server, and the bucket itself."""
    home, folder = tmp_path_factory.mktemp("lake"), uuid4().hex
    versions = VersionedBucket(s3)
    (home / "secret").write_text(f"{SECRET}\n")
    (home / "token").write_text(TOKEN)
    (home / "connections.toml").write_text(
        f"""
        [lake]
        tenants = ["red"]
        read = ["s3://atmc/{folder}/in"]
        write = ["s3://atmc/{folder}/out/"]
        endpoint = "{s3["store_endpoint"]}"
        access_key_id_env = "LAKE_ID"
        secret_access_key_file = "{home}/secret"
        [versions]
        tenants = ["red"]
        read = ["s3://{versions.name}/"]
        endpoint = "{s3["store_endpoint"]}"
        access_key_id_env = "LAKE_ID"
        secret_access_key_file = "{home}/secret"
        [web]
        tenants = ["red", "blue"]
        read = ["{web.url}/sets/"]
        networks = ["127.0.0.0/8"]
        ca_file = "{web.authority}"
        token_file = "{home}/token"
        [away]
        tenants = ["red"]
        read = ["https://127.0.0.1:9/"]
        networks = ["127.0.0.0/8"]
        [closed]
        tenants = ["red"]
        read = ["https://localhost/"]
        [wrong]
        tenants = ["red"]
        read = ["s3://atmc/{folder}/wrong/"]
        endpoint = "{s3["store_endpoint"]}"
        access_key_id_env = "LAKE_ID"
        secret_access_key_env = "LAKE_ID"
        """
    )
    settings = settings_in(home / "data", template, broker)
    settings.admin_key = SecretStr(ADMIN_KEY)
    settings.connections = home / "connections.toml"
    bucket = S3Store(
        "atmc",
        config={
            "endpoint": s3["store_endpoint"],
            "access_key_id": s3["store_access_key_id"],
            "secret_access_key": s3["store_secret_access_key"],
            "region": "us-east-1",
        },
        client_options={"allow_http": True},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAKE_ID", s3["store_access_key_id"])
        patch.setattr(carrying, "POLL_S", 0.05)
        patch.setattr(carrying, "TELL_S", 0.0)
        for service in running(settings):
            admin = service.keyed(ADMIN_KEY)
            red, blue = admin.new_tenant("red"), admin.new_tenant("blue")
            yield Lake(red, blue, admin, bucket, folder, versions)


class Lake:
    def __init__(
        self,
        red: Service,
        blue: Service,
        admin: Service,
        bucket: S3Store,
        folder: str,
        versions: VersionedBucket,
    ) -> None:
        self.versions = versions
        self.red, self.blue, self.admin, self.bucket, self.folder = red, blue, admin, bucket, folder

    def put(self, name: str, content: bytes) -> str:
        """Put an object where it may be read; returns its URI."""
        obstore.put(self.bucket, f"{self.folder}/in/{name}", content)
        return f"s3://atmc/{self.folder}/in/{name}"

    def ended(self, link: str) -> dict[str, Any]:
        """What has become of a fetch."""
        wait_until(lambda: self.red.http.get(link).json()["state"] != "fetching", 20)
        found: dict[str, Any] = self.red.http.get(link).json()
        return found

    def fetch(self, path: str, uri: str, **more: Any) -> dict[str, Any]:
        response = self.red.http.post(path, json={"uri": uri, **more})
        assert response.status_code == 201, response.text
        return self.ended(response.json()["links"]["self"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is claimed until the event is set."""
    go, claim = threading.Event(), transfers.claim

    def wait(*args: Any) -> Any:
        return claim(*args) if go.is_set() else []

    monkeypatch.setattr(transfers, "claim", wait)
    yield go
    go.set()


def test_a_model_and_a_data_set_are_fetched_once_and_kept_as_uploads_are(lake: Lake) -> None:
    uri = lake.put("net.safetensors", MODEL)
    model = lake.fetch("/models", uri, **ARCHITECTURE, name="mine", labels={"a": "b"})
    uploaded = lake.red.send_model().json()
    for name in ("format", "architecture", "dimensions", "dense_weights", "sha256", "bytes"):
        assert model[name] == uploaded[name], name
    assert (model["filename"], model["state"], model["name"]) == (
        "net.safetensors",
        "ready",
        "mine",
    )
    source = model["source"]
    assert (source["uri"], source["connection"], source["error"]) == (uri, "lake", None)
    assert source["etag"]
    assert source["total_bytes"] == source["fetched_bytes"] == len(MODEL)
    assert uploaded["source"] is None
    assert len([key for key in lake.red.stored_files() if sha256(MODEL) in key]) == 1
    dataset = lake.fetch("/datasets", lake.put("d.npz", files.npz_file()))
    assert dataset["arrays"]["x_train"]["dtype"] == "uint8"
    assert not [key for key in lake.red.stored_files() if "staged" in key]
    found = lake.red.http.get("/models", params={"label": "a:b", "state": "ready"}).json()
    assert [row["id"] for row in found["data"]] == [model["id"]]


def test_a_job_waits_for_what_it_is_made_of(lake: Lake, held: threading.Event) -> None:
    body = {
        "model": {"uri": lake.put("net.safetensors", MODEL)},
        "dataset": {"uri": lake.put("d.npz", files.npz_file())},
        **ARCHITECTURE,
        **files.SPEC,
    }
    once = {"Idempotency-Key": uuid4().hex}
    made = lake.red.http.post("/jobs", json=body, headers=once)
    assert made.status_code == 202, made.text
    again = lake.red.http.post("/jobs", json=body, headers=once)
    assert again.json()["id"] == made.json()["id"]
    job = made.json()
    assert job["waiting"]["code"] == "fetching_inputs"
    model = lake.red.http.get(job["links"]["model"]).json()
    assert [model[name] for name in ("state", "sha256", "bytes", "format")] == ["fetching"] + 3 * [
        None
    ]
    with pytest.raises(AssertionError):
        claimed(lake.red)
    by_id = {"model_id": job["model_id"], "dataset_id": job["dataset_id"], **files.SPEC}
    assert lake.red.http.post("/jobs", json=by_id).json()["waiting"]["code"] == "fetching_inputs"
    sweep = {"model_id": job["model_id"], "dataset_id": job["dataset_id"], "spec": files.SPEC}
    refused = lake.red.http.post("/sweeps", json=sweep | {"grid": {"bits": [4, 8]}})
    assert_problem(refused, 422, "invalid_value", "model_id")
    held.set()
    for link in ("model", "dataset"):
        assert lake.ended(job["links"][link])["state"] == "ready"
    assert lake.red.http.get(job["links"]["self"]).json()["waiting"]["code"] == "no_such_worker"
    assert claimed(lake.red).job_id == job["id"]
    for each in lake.red.http.get("/jobs").json()["data"]:
        lake.red.http.post(each["links"]["cancel"])


def test_what_changed_since_it_was_named_is_not_taken(lake: Lake, held: threading.Event) -> None:
    uri = lake.put("changing", MODEL)
    dataset = lake.red.send_dataset().json()["id"]
    body = {"model": {"uri": uri}, "dataset_id": dataset, **ARCHITECTURE, **files.SPEC}
    job = lake.red.http.post("/jobs", json=body).json()
    lake.put("changing", MODEL + b"more")
    held.set()
    model = lake.ended(job["links"]["model"])
    assert (model["state"], model["source"]["error"]["code"]) == ("failed", "source_changed")
    failed = lake.red.http.get(job["links"]["self"]).json()
    assert (failed["state"], failed["error"]["code"]) == ("failed", "source_changed")
    assert failed["error"]["param"] == "model"
    again = lake.red.http.post(job["links"]["retry"])
    assert_problem(again, 409, "not_retryable")
    by_id = {"model_id": model["id"], "dataset_id": dataset, **files.SPEC}
    refused = lake.red.http.post("/jobs", json=by_id)
    assert_problem(refused, 422, "invalid_value", "model_id")
    for wrong in ({"etag": "another"}, {"version": "no-such"}):
        refused = lake.red.http.post("/models", json={"uri": uri, **ARCHITECTURE, **wrong})
        assert refused.json()["code"] in ("source_changed", "source_missing", "source_refused")
    lake.put("changing", MODEL)
    named = lake.fetch("/models", uri, **ARCHITECTURE, sha256="0" * 64)
    assert named["source"]["error"]["code"] == "source_changed"
    assert lake.fetch("/models", uri, **ARCHITECTURE, sha256=sha256(MODEL))["state"] == "ready"


def test_a_version_is_taken_though_another_one_lies_there_now(lake: Lake) -> None:
    first = lake.versions.put("net", MODEL)
    lake.versions.put("net", MODEL + b"more")
    uri = f"s3://{lake.versions.name}/net"
    model = lake.fetch("/models", uri, **ARCHITECTURE, version=first)
    assert (model["state"], model["sha256"]) == ("ready", sha256(MODEL)), model
    assert model["source"]["version"] == first
    refused = lake.red.http.post("/models", json={"uri": uri, **ARCHITECTURE, "version": "no-such"})
    assert_problem(refused, 422, "source_missing", "uri")


def test_a_folder_of_parquet_files_is_one_data_set(lake: Lake) -> None:
    parquet = b"PAR1" + bytes(1000) + b"PAR1"
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        lake.put(f"hub/data/{name}.parquet", parquet)
    uri = lake.put("hub/README.md", b"# a card").removesuffix("/README.md")
    made = [lake.fetch("/datasets", each) for each in (uri, f"{uri}/")]
    assert made[0]["state"] == "ready", made[0]
    assert made[0]["sha256"] == made[1]["sha256"]
    assert made[0]["bytes"] == made[0]["source"]["total_bytes"]
    (key,) = (key for key in lake.red.stored_files() if made[0]["sha256"] in key)
    content = (lake.red.settings.home / "objects" / key).read_bytes()
    assert is_tar(content[:512])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = archive.getnames()
        assert names == [
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00001.parquet",
        ]
        first = archive.extractfile(names[0])
        assert first is not None
        assert first.read() == parquet
    lake.put("cards/README.md", b"# a card")
    lake.put("strange/data/one.parquet", parquet)
    for folder, code in (("cards", "source_unusable"), ("strange", "malformed_dataset")):
        uri = f"s3://atmc/{lake.folder}/in/{folder}"
        refused = lake.red.http.post("/datasets", json={"uri": uri})
        assert_problem(refused, 422, code, "uri")
    refused = lake.red.http.post("/models", json={"uri": uri, **ARCHITECTURE})
    assert_problem(refused, 422, "source_missing", "uri")


@pytest.mark.parametrize(
    ("uri", "status", "code"),
    [
        ("s3://atmc/{folder}/in/absent", 422, "source_missing"),
        ("s3://atmc/{folder}/inside", 422, "source_not_allowed"),
        ("s3://atmc/{folder}/out/x", 422, "source_not_allowed"),
        ("s3://atmc/{folder}/in/../out/x", 422, "source_not_allowed"),
        ("s3://other/{folder}/in/x", 422, "source_not_allowed"),
        ("s3://atmc/{folder}/wrong/x", 422, "source_refused"),
        ("https://127.0.0.1:9/x", 503, "source_away"),
        ("https://localhost/x", 422, "source_not_allowed"),
        ("https://169.254.169.254/x", 422, "source_not_allowed"),
        ("https://example.com/x", 422, "source_not_allowed"),
        ("http://example.com/x", 422, "invalid_value"),
        ("file:///etc/passwd", 422, "invalid_value"),
    ],
)
def test_what_cannot_be_had_is_refused_at_once(
    lake: Lake, uri: str, status: int, code: str
) -> None:
    uri = uri.format(folder=lake.folder)
    answer = lake.red.http.post("/models", json={"uri": uri, **ARCHITECTURE})
    assert_problem(answer, status, code, "uri")
    body = {"model": {"uri": uri}, "dataset_id": "dst_0", **ARCHITECTURE, **files.SPEC}
    assert_problem(lake.red.http.post("/jobs", json=body), status, code, "model.uri")
    # Another tenant's connection is as unknown as one that never was.
    details = set()
    for name in ("lake", "never"):
        named = {"uri": "s3://atmc/x", "connection": name, **ARCHITECTURE}
        refused = lake.blue.http.post("/models", json=named)
        detail = assert_problem(refused, 422, "source_not_allowed", "uri")
        details.add(detail.replace(name, "NAME"))
    assert len(details) == 1


def test_what_comes_is_checked_as_an_upload_is(lake: Lake) -> None:
    broken = lake.fetch("/models", lake.put("broken", b"no model at all"), **ARCHITECTURE)
    assert (broken["state"], broken["source"]["error"]["code"]) == ("failed", "malformed_model")
    uri = lake.put("large", bytes(1_000_001))
    large = lake.red.http.post("/models", json={"uri": uri, **ARCHITECTURE})
    assert_problem(large, 413, "file_too_large")
    unknown = lake.red.http.post("/models", json={"uri": uri, "architecture": "lenet6"})
    assert unknown.status_code == 413
    small = lake.put("net.safetensors", MODEL)
    unknown = lake.red.http.post("/models", json={"uri": small, "architecture": "lenet6"})
    assert_problem(unknown, 422, "unknown_architecture")
    both = {"uri": small, "upload_id": "upl_0", **ARCHITECTURE}
    assert_problem(lake.red.http.post("/models", json=both), 422, "invalid_value", "uri")
    neither = lake.red.http.post("/datasets", json={})
    assert_problem(neither, 422, "missing_field", "upload_id")
    job = {"model": {"uri": small}, "dataset_id": "dst_0", **files.SPEC}
    assert_problem(lake.red.http.post("/jobs", json=job), 422, "missing_field", "architecture")
    lake.admin.http.patch("/tenants/blue", json={"max_stored_bytes": 10})


def test_a_file_is_fetched_over_https_with_the_connection_s_token(lake: Lake, web: Web) -> None:
    url = f"{web.url}/sets"
    web.answers["/sets/net"] = (200, {"ETag": '"one"'}, MODEL)
    web.asked.clear()
    model = lake.fetch("/models", f"{url}/net", **ARCHITECTURE)
    assert (model["state"], model["source"]["etag"]) == ("ready", '"one"'), model
    assert web.asked == 2 * [("GET", "/sets/net", f"Bearer {TOKEN}")]
    web.answers["/sets/moved"] = (302, {"Location": f"{url}/net"}, b"")
    web.answers["/sets/secret"] = (403, {}, b"")
    web.answers["/sets/busy"] = (500, {}, b"")
    expected = {"moved": "refused", "secret": "refused", "busy": "away", "absent": "missing"}
    for name, why in expected.items():
        refused = lake.red.http.post("/models", json={"uri": f"{url}/{name}", **ARCHITECTURE})
        assert refused.json()["code"] == f"source_{why}", name
    for name in ("../secret", "%2e%2e/secret", "net?token=x", "net#x"):
        refused = lake.red.http.post("/models", json={"uri": f"{url}/{name}", **ARCHITECTURE})
        assert_problem(refused, 422, "source_not_allowed", "uri")
    lake.admin.http.patch("/tenants/blue", json={"max_stored_bytes": 10})
    refused = lake.blue.http.post("/models", json={"uri": f"{url}/net", **ARCHITECTURE})
    assert_problem(refused, 429, "quota_exceeded")


def test_results_are_put_where_the_job_says(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "RETRY_AFTER_S", (0.0,))
    secret = lake.red.settings.connections
    assert secret is not None
    key = secret.parent / "secret"
    folder = f"s3://atmc/{lake.folder}/out/nightly/"
    for wrong in (f"s3://atmc/{lake.folder}/in/x", f"s3://atmc/{lake.folder}/outside"):
        refused = lake.red.send_job(results={"uri": wrong})
        assert_problem(refused, 422, "source_not_allowed", "results.uri")
    key.write_text("another")
    try:
        job = finished_job(lake.red, "red", results={"uri": folder})
        assert (job["state"], job["results"]["uri"]) == ("succeeded", f"{folder}{job['id']}")
        link = job["links"]["self"]
        wait_until(lambda: lake.red.http.get(link).json()["results"]["state"] == "failed")
        told = lake.red.http.get(link).json()
        assert (told["state"], told["results"]["tries"]) == ("succeeded", 1)
        assert told["results"]["error"]["code"] == "source_refused"
    finally:
        key.write_text(SECRET)
    job = finished_job(lake.red, "red", results={"uri": folder})
    link = job["links"]["self"]
    wait_until(lambda: lake.red.http.get(link).json()["results"]["state"] == "delivered")
    told = lake.red.http.get(link).json()["results"]
    for each in lake.red.http.get(job["links"]["artifacts"]).json()["data"]:
        path = f"{lake.folder}/out/nightly/{job['id']}/{each['name']}"
        content = bytes(obstore.get(lake.bucket, path).bytes())
        assert sha256(content) == each["sha256"]
        assert each["name"] in told["files"]


def test_connections_are_listed_without_secrets_which_lie_nowhere_else(lake: Lake) -> None:
    found = lake.red.http.get("/connections").json()["data"]
    assert [each["name"] for each in found] == [
        "lake",
        "versions",
        "web",
        "away",
        "closed",
        "wrong",
    ]
    assert set(found[0]) == {"name", "kind", "read", "write"}
    assert [each["name"] for each in lake.blue.http.get("/connections").json()["data"]] == ["web"]
    with lake.red.services.database.read() as session:
        for table in Base.metadata.tables.values():
            rows = str(session.execute(table.select()).all())
            assert not [secret for secret in (SECRET, TOKEN) if secret in rows], table


def test_what_is_deleted_is_not_fetched(lake: Lake, held: threading.Event) -> None:
    uri = lake.put("net.safetensors", MODEL)
    made = lake.red.http.post("/models", json={"uri": uri, **ARCHITECTURE}).json()
    assert lake.red.http.delete(made["links"]["self"]).status_code == 204
    with lake.red.services.database.of("red", Origin("test")).read() as session:
        assert session.get(Transfer, made["id"]) is None
    held.set()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[lake", "ATMC_CONNECTIONS"),
        ('[Lake]\ntenants = ["red"]', "small letters"),
        ('[lake]\ntenants = ["red"]', "'read' or 'write'"),
        ('[lake]\ntenants = []\nread = ["s3://atmc/"]', "tenants"),
        ('[lake]\ntenants = ["red"]\nread = ["s3://atmc/"]', "access_key_id"),
        ('[lake]\ntenants = ["red"]\nread = ["ftp://atmc/"]', "s3:// or https://"),
        ('[lake]\ntenants = ["red"]\nread = ["https://a.b/"]\ntoken_env = "NEVER_SET"', "not set"),
        ('[lake]\ntenants = ["red"]\nread = ["https://a.b/"]\nsecret = "x"', "secret"),
    ],
)
def test_a_file_of_connections_that_is_wrong_is_refused_at_the_start(
    tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "connections.toml").write_text(text)
    with pytest.raises(ValueError, match=why):
        Connections.from_settings(Settings(connections=tmp_path / "connections.toml"))
