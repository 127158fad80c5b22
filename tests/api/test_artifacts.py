"""Downloads: whole, in ranges, validated, or at the object store's own URL."""

import base64
import hashlib
from typing import Any

import httpx
import pytest

from api.artifacts.ranges import wanted_range
from api.problems import Problem
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from tests.api.conftest import ARTIFACT, Service, assert_problem
from tests.conftest import EMBEDDED, PRODUCTION

SIZE = len(ARTIFACT)
DIGEST = hashlib.sha256(ARTIFACT)
ETAG = f'"{DIGEST.hexdigest()}"'

# Where the store has URLs of its own, the caller is sent there.
streamed = pytest.mark.parametrize("column", [EMBEDDED])


@pytest.fixture
def url(finished: dict[str, Any]) -> str:
    return f"{finished['links']['artifacts']}/model.atmc"


def test_the_files_of_a_job_are_listed(service: Service, finished: dict[str, Any]) -> None:
    listed = service.http.get(finished["links"]["artifacts"]).json()
    assert (listed["has_more"], listed["next"]) == (False, None)
    names = [artifact["name"] for artifact in listed["data"]]
    assert names == ["model.atmc", "report.html", "report.json"]
    artifact = listed["data"][0]
    assert (artifact["bytes"], artifact["sha256"]) == (len(ARTIFACT), DIGEST.hexdigest())
    got = service.http.get(artifact["links"]["self"], follow_redirects=True)
    assert got.content == ARTIFACT


@streamed
def test_a_file_comes_whole_with_its_digest(service: Service, url: str) -> None:
    response = service.http.get(url)
    assert response.status_code == 200
    assert response.content == ARTIFACT
    assert response.headers["Content-Length"] == str(len(ARTIFACT))
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["ETag"] == ETAG
    digest = base64.b64encode(DIGEST.digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert response.headers["Accept-Ranges"] == "bytes"


@streamed
def test_a_head_request_tells_the_same_without_the_file(service: Service, url: str) -> None:
    head, get = service.http.head(url), service.http.get(url)
    assert head.content == b""
    for name in ("Content-Length", "ETag", "Repr-Digest", "Content-Type", "Accept-Ranges"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("column", [pytest.param(PRODUCTION, marks=pytest.mark.slow)])
def test_at_the_store_s_own_url_the_file_comes_whole_or_in_part(service: Service, url: str) -> None:
    there = service.http.get(url).headers["Location"]
    assert httpx.get(there).content == ARTIFACT
    part = httpx.get(there, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, ARTIFACT[100:200])
    # Asked here, as a signature is good for one method.
    head = service.http.head(url)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(SIZE))
    assert head.headers["ETag"] == ETAG


@streamed
@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-", 10_000, SIZE),
        ("bytes=10000-99999999", 10_000, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        ("bytes=-99999999", 0, SIZE),
    ],
)
def test_a_range_comes_alone(service: Service, url: str, wanted: str, start: int, end: int) -> None:
    response = service.http.get(url, headers={"Range": wanted})
    assert response.status_code == 206
    assert response.content == ARTIFACT[start:end]
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response.headers["Content-Length"] == str(end - start)
    assert response.headers["ETag"] == ETAG


@streamed
@pytest.mark.parametrize("wanted", ["bytes=20-10", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "x"])
def test_a_range_that_is_not_understood_is_answered_with_the_whole(
    service: Service, url: str, wanted: str
) -> None:
    response = service.http.get(url, headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, ARTIFACT)


@streamed
@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=99999999-", "bytes=-0"])
def test_a_range_past_the_end_is_refused(service: Service, url: str, wanted: str) -> None:
    response = service.http.get(url, headers={"Range": wanted})
    assert_problem(response, 416, "range_not_satisfiable", "Range")
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"


@streamed
def test_a_file_resumes_only_if_it_is_the_same(service: Service, url: str) -> None:
    for validator, status in ((ETAG, 206), ('"other"', 200)):
        headers = {"Range": "bytes=5-9", "If-Range": validator}
        assert service.http.get(url, headers=headers).status_code == status


@pytest.mark.parametrize("known", [ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"])
def test_a_file_that_the_caller_has_is_not_sent(service: Service, url: str, known: str) -> None:
    response = service.http.get(url, headers={"If-None-Match": known})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["ETag"] == ETAG


def test_an_empty_file_has_no_ranges() -> None:
    assert wanted_range({}, ETAG, 0) is None
    with pytest.raises(Problem):
        wanted_range({"Range": "bytes=0-"}, ETAG, 0)


def test_an_unknown_file_is_not_found(service: Service, finished: dict[str, Any]) -> None:
    for name in ("model.pt", "..%2f..%2fatmc.db", "%2e%2e"):
        response = service.http.get(f"{finished['links']['artifacts']}/{name}")
        assert_problem(response, 404, "not_found")


def test_where_the_store_has_urls_the_file_is_fetched_there(
    service: Service, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Signing needs no server; that the URL works is the store's own test.
    settings = Settings(
        store_url="s3://bucket/prefix",
        store_endpoint="http://127.0.0.1:1",
        store_access_key_id="id",
        store_secret_access_key="secret",
    )
    presign, bucket = ObjectStore.presign, ObjectStore.from_settings(settings)
    monkeypatch.setattr(ObjectStore, "presign", lambda _, key, **how: presign(bucket, key, **how))
    response = service.http.get(url)
    assert response.status_code == 307
    location = response.headers["Location"]
    assert location.startswith("http://127.0.0.1:1/bucket/prefix/blobs/")
    assert DIGEST.hexdigest() in location
    assert "X-Amz-Signature=" in location
    assert "X-Amz-Expires=300" in location
    # A page may reach no other host than the API's.
    through = service.http.get(url, params={"redirect": "false"})
    assert (through.status_code, through.content) == (200, ARTIFACT)
