"""Large uploads: by the tus protocol, resumed where they broke off, or straight into the store."""

import base64
import hashlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

from api.uploads import appending
from jobstore import incoming
from jobstore.blobs import UNSETTLED_S
from jobstore.dialects import clock
from jobstore.errors import OffsetConflict
from jobstore.stocktaking import find_strays
from jobstore.tables import IncomingUpload
from keeper.sweep import sweep_uploads
from tests.api import files
from tests.api.conftest import Service, assert_problem, wait_until
from tests.conftest import COLUMNS

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}
CONTENT = files.safetensors_file()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an upload of a test consist of several chunks."""
    monkeypatch.setattr(appending, "CHUNK_BYTES", 10_000)


def begin(service: Service, size: int = len(CONTENT), **headers: str) -> str:
    response = service.http.post("/uploads", headers=TUS | {"Upload-Length": str(size)} | headers)
    assert response.status_code == 201, response.text
    return response.headers["Location"]


def send(service: Service, url: str, offset: int, piece: bytes, **headers: str) -> httpx.Response:
    headers = PIECE | {"Upload-Offset": str(offset)} | headers
    return service.http.patch(url, content=piece, headers=headers)


def offset(service: Service, url: str) -> int:
    return int(service.http.head(url, headers=TUS).headers["Upload-Offset"])


def upload_id(url: str) -> str:
    return url.rpartition("/")[2]


def as_model(service: Service, url: str, **headers: str) -> httpx.Response:
    body = {"upload_id": upload_id(url), "architecture": files.ARCHITECTURE}
    return service.http.post("/models", json=body, headers=headers)


def tus_client(service: Service) -> TusClient:
    return TusClient(f"{service.http.base_url}/uploads".replace("//uploads", "/uploads"))


def test_a_tus_client_uploads_a_network(service: Service) -> None:
    uploader = tus_client(service).uploader(
        file_stream=io.BytesIO(CONTENT),
        chunk_size=17_000,
        metadata={"filename": "net.safetensors"},
        upload_checksum=True,
    )
    uploader.upload()
    assert offset(service, uploader.url) == len(CONTENT)
    model = as_model(service, uploader.url).json()
    assert (model["sha256"], model["filename"]) == (
        hashlib.sha256(CONTENT).hexdigest(),
        "net.safetensors",
    )
    # Used up: only the network itself is still there.
    assert service.stored_files() == [f"blobs/{model['sha256'][:2]}/{model['sha256']}"]
    assert_problem(service.http.get(uploader.url), 404, "not_found")


def test_a_tus_client_goes_on_where_another_was_cut_off(service: Service, tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(CONTENT)
    arguments: dict[str, Any] = {
        "file_path": str(tmp_path / "net"),
        "chunk_size": 9_000,
        "store_url": True,
        "url_storage": FileStorage(str(tmp_path / "urls")),
    }
    first = tus_client(service).uploader(**arguments)
    first.upload(stop_at=9_000)
    second = tus_client(service).uploader(**arguments)
    assert (second.url, second.offset) == (first.url, 9_000)
    second.upload()
    assert as_model(service, second.url).status_code == 201


def test_a_data_set_and_a_job_go_the_same_way(service: Service) -> None:
    content = files.npz_file()
    ids = []
    for path, more, data in (
        ("/datasets", {}, content),
        ("/models", {"architecture": files.ARCHITECTURE}, CONTENT),
    ):
        url = begin(service, len(data))
        assert send(service, url, 0, data).status_code == 204
        response = service.http.post(path, json={"upload_id": upload_id(url)} | more)
        assert response.status_code == 201
        assert response.headers["Location"] == response.json()["links"]["self"]
        ids.append(response.json()["id"])
    job = service.http.post("/jobs", json={"dataset_id": ids[0], "model_id": ids[1]} | files.SPEC)
    assert job.status_code == 202


def test_what_arrived_before_a_connection_broke_is_kept(service: Service) -> None:
    url = begin(service)
    address = (service.http.base_url.host, service.http.base_url.port)
    with socket.create_connection(address) as connection:
        lines = [f"PATCH {url} HTTP/1.1", "Host: localhost", f"Content-Length: {len(CONTENT)}"]
        lines += [f"{name}: {value}" for name, value in (PIECE | {"Upload-Offset": "0"}).items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + CONTENT[:25_000])
        # In the database before the connection ends, but for less than a chunk.
        wait_until(lambda: offset(service, url) >= 15_000)

    def rest() -> httpx.Response:
        kept = offset(service, url)
        assert 15_000 <= kept <= 25_000
        return send(service, url, kept, CONTENT[kept:])

    # The last of what came may just be written while the client asks: then it asks again.
    wait_until(lambda: rest().status_code == 204)
    assert as_model(service, url).json()["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_a_body_with_a_checksum_is_kept_whole_or_not_at_all(service: Service) -> None:
    url = begin(service)
    for algorithm in ("sha256", "sha1", "md5"):
        digest = base64.b64encode(hashlib.new(algorithm, b"another").digest()).decode()
        wrong = {"Upload-Checksum": f"{algorithm} {digest}"}
        assert_problem(send(service, url, 0, CONTENT, **wrong), 460, "checksum_mismatch")
        assert offset(service, url) == 0
        assert service.stored_files() == []
    right = base64.b64encode(hashlib.sha1(CONTENT, usedforsecurity=False).digest()).decode()
    assert send(service, url, 0, CONTENT, **{"Upload-Checksum": f"sha1 {right}"}).is_success
    assert offset(service, url) == len(CONTENT)


def test_a_piece_may_come_with_the_beginning(service: Service) -> None:
    headers = PIECE | {"Upload-Length": str(len(CONTENT))}
    response = service.http.post("/uploads", content=CONTENT[:30_000], headers=headers)
    assert (response.status_code, response.headers["Upload-Offset"]) == (201, "30000")
    url = response.headers["Location"]
    assert send(service, url, 30_000, CONTENT[30_000:]).is_success
    assert as_model(service, url).status_code == 201


def test_the_protocol_s_headers_are_there(service: Service) -> None:
    response = service.http.options("/uploads")
    assert response.status_code == 204
    assert response.headers["Tus-Version"] == "1.0.0"
    assert response.headers["Tus-Max-Size"] == str(service.settings.max_model_bytes)
    assert response.headers["Tus-Checksum-Algorithm"] == "sha256,sha1,md5"
    named = set(response.headers["Tus-Extension"].split(","))
    assert named == {"creation", "creation-with-upload", "expiration", "checksum", "termination"}
    metadata = "filename bmV0,is_confidential"
    url = begin(service, **{"Upload-Metadata": metadata})
    head = service.http.head(url, headers=TUS)
    assert head.headers["Upload-Length"] == str(len(CONTENT))
    assert head.headers["Upload-Metadata"] == metadata
    assert head.headers["Upload-Expires"].endswith(" GMT")
    assert head.headers["Cache-Control"] == "no-store"
    view = service.http.get(url).json()
    assert (view["filename"], view["received"]) == ("net", 0)


def test_an_upload_that_is_given_up_leaves_nothing(service: Service) -> None:
    url = begin(service)
    send(service, url, 0, CONTENT[:30_000])
    assert service.stored_files()
    assert service.http.delete(url, headers=TUS).status_code == 204
    assert service.stored_files() == []
    assert_problem(service.http.delete(url, headers=TUS), 404, "not_found")
    assert service.http.head(url, headers=TUS).status_code == 404


def test_a_client_behind_a_narrow_proxy_posts_instead(service: Service) -> None:
    url = begin(service)
    headers = PIECE | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    sent = service.http.post(url, content=CONTENT, headers=headers)
    assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, str(len(CONTENT)))
    gone = service.http.post(url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"})
    assert gone.status_code == 204
    assert_problem(service.http.get(url), 404, "not_found")
    assert_problem(service.http.post(url, headers=PIECE), 422, "missing_field")


def test_an_upload_that_is_abandoned_is_swept(service: Service) -> None:
    old, new = begin(service), begin(service)
    for url in (old, new):
        send(service, url, 0, CONTENT[:30_000])
    with service.database.write() as session:
        expired = update(IncomingUpload).where(IncomingUpload.id == upload_id(old))
        session.execute(expired.values(expires_at=clock(-1)))
    assert_problem(service.http.get(old), 404, "not_found")
    before = len(service.stored_files())
    sweep_uploads(service.database, service.services.store)
    assert len(service.stored_files()) == before / 2
    assert offset(service, new) == 30_000


def test_what_a_killed_process_left_half_written_is_swept(service: Service) -> None:
    path = service.settings.home / "left"
    path.write_bytes(b"left")
    service.services.store.put_file("staged/left", path)

    def strays(lifetime_s: float) -> list[str]:
        store = service.services.store
        with service.database.read() as session:
            return find_strays(session, store, upload_lifetime_s=lifetime_s).keys

    assert strays(60) == []
    wait_until(lambda: strays(-UNSETTLED_S) == ["staged/left"])


@pytest.mark.parametrize(
    ("headers", "status", "code", "param"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "unknown_tus_version", "Tus-Resumable"),
        ({"Upload-Length": "-1"}, 422, "invalid_value", "Upload-Length"),
        ({"Upload-Length": "9" * 30}, 422, "invalid_value", "Upload-Length"),
        ({"Upload-Length": "1000000000"}, 413, "file_too_large", None),
        ({"Upload-Metadata": "a b c"}, 422, "invalid_value", "Upload-Metadata"),
        ({"Upload-Metadata": "a !"}, 422, "invalid_value", "Upload-Metadata"),
        ({"Upload-Metadata": "a YQ==,a YQ=="}, 422, "invalid_value", "Upload-Metadata"),
        ({"Upload-Metadata": ",,"}, 422, "invalid_value", "Upload-Metadata"),
        ({"Upload-Checksum": "crc32 AAAA"}, 400, "unknown_checksum", "Upload-Checksum"),
        ({"Upload-Checksum": "sha1 !"}, 422, "invalid_value", "Upload-Checksum"),
    ],
)
def test_a_beginning_that_is_wrong_is_refused(
    shared: Service, headers: dict[str, str], status: int, code: str, param: str | None
) -> None:
    response = shared.http.post("/uploads", headers=TUS | {"Upload-Length": "5"} | headers)
    assert_problem(response, status, code, param)


def test_a_beginning_without_its_headers_is_refused(shared: Service) -> None:
    assert_problem(shared.http.post("/uploads"), 412, "unknown_tus_version")
    response = shared.http.post("/uploads", headers=TUS)
    assert_problem(response, 422, "missing_field", "Upload-Length")


def test_a_piece_that_does_not_fit_is_refused(service: Service) -> None:
    url = begin(service, 20)
    assert_problem(send(service, url, 5, b"x"), 409, "offset_conflict", "Upload-Offset")
    assert_problem(send(service, url, 0, b"x" * 21), 413, "file_too_large")

    def undeclared() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    headers = PIECE | {"Upload-Offset": "0"}
    response = service.http.patch(url, content=undeclared(), headers=headers)
    assert_problem(response, 413, "file_too_large")
    response = service.http.patch(url, content=b"x", headers=TUS | {"Upload-Offset": "0"})
    assert_problem(response, 415, "unsupported_media_type", "Content-Type")
    assert (offset(service, url), service.stored_files()) == (0, [])
    for name in ("upl_0", "%00"):
        assert send(service, f"/uploads/{name}", 0, b"x").status_code in (404, 422)


def test_of_two_who_write_at_the_same_offset_one_is_told(service: Service) -> None:
    url = begin(service, 8)
    with service.database.write() as session:
        row = incoming.get_upload(session, upload_id(url))
        incoming.append(session, row.id, 0, [incoming.Chunk("staged/a", 4)])
    with pytest.raises(OffsetConflict), service.database.write() as session:
        incoming.append(session, row.id, 0, [incoming.Chunk("staged/b", 8)])
    assert offset(service, url) == 4


def test_an_upload_is_used_once_it_is_whole_and_only_once(service: Service) -> None:
    url = begin(service)
    assert_problem(as_model(service, url), 409, "upload_incomplete", "upload_id")
    send(service, url, 0, CONTENT)
    first = as_model(service, url, **{"Idempotency-Key": "once"})
    assert first.status_code == 201
    again = as_model(service, url, **{"Idempotency-Key": "once"})
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    assert_problem(as_model(service, url), 422, "invalid_value", "upload_id")


def test_an_upload_that_is_no_network_can_be_used_for_something_else(service: Service) -> None:
    content = files.npz_file()
    url = begin(service, len(content))
    send(service, url, 0, content)
    assert_problem(as_model(service, url), 422, "malformed_model", "upload_id")
    response = service.http.post("/datasets", json={"upload_id": upload_id(url)})
    assert response.status_code == 201


def direct(service: Service, content: bytes = CONTENT, **changes: Any) -> httpx.Response:
    body = {
        "filename": "net.safetensors",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return service.http.post("/uploads/direct", json=body | changes)


def test_a_folder_takes_no_direct_upload(shared: Service) -> None:
    assert "POST /uploads" in assert_problem(direct(shared), 422, "no_direct_uploads")


@pytest.mark.parametrize("changes", [{"bytes": 0}, {"sha256": "a"}, {"filename": "\0"}, {"x": 1}])
def test_a_direct_upload_that_is_wrong_is_refused(shared: Service, changes: Any) -> None:
    assert direct(shared, **changes).status_code == 422


@pytest.mark.parametrize("column", [COLUMNS[1]])
def test_a_direct_upload_is_verified_before_its_use(service: Service) -> None:
    new = direct(service).json()
    assert_problem(as_model(service, new["links"]["self"]), 409, "upload_incomplete", "upload_id")
    assert put(new, CONTENT[:-1] + b"?").is_success
    response = as_model(service, new["links"]["self"])
    assert_problem(response, 422, "digest_mismatch", "upload_id")
    assert service.stored_files() == []
    # A store that signs no lengths would let this in.
    with service.database.read() as session:
        key = incoming.get_upload(session, new["id"]).direct_key
    path = service.settings.home / "longer"
    path.write_bytes(CONTENT + b"?")
    service.services.store.put_file(str(key), path)
    response = as_model(service, new["links"]["self"])
    assert_problem(response, 422, "digest_mismatch", "upload_id")
    assert service.stored_files() == []
    assert put(new, CONTENT).is_success
    model = as_model(service, new["links"]["self"]).json()
    assert model["sha256"] == new["sha256"]
    with service.services.store.open(f"blobs/{model['sha256'][:2]}/{model['sha256']}") as file:
        assert file.read() == CONTENT


def put(new: dict[str, Any], content: bytes, **changes: str) -> httpx.Response:
    """Put the content where a direct upload takes it."""
    return httpx.put(new["url"], content=content, headers=new["headers"] | changes)


@pytest.mark.parametrize("column", [COLUMNS[1]])
@pytest.mark.parametrize("ending", ["used", "given up"])
def test_a_direct_upload_takes_one_put_of_what_was_announced(service: Service, ending: str) -> None:
    def stored() -> int:
        return sum(found.bytes for found in service.services.store.find())

    new = direct(service).json()
    assert put(new, b"x" * (5 << 20)).status_code == 403
    assert put(new, b"").status_code == 403
    assert httpx.put(new["url"], content=iter([CONTENT]), headers=new["headers"]).is_error
    assert httpx.put(new["url"], content=CONTENT).status_code == 403
    assert stored() == 0
    assert put(new, CONTENT).is_success
    assert put(new, CONTENT).status_code == 412
    upload = new["links"]["self"]
    if ending == "used":
        assert as_model(service, upload).status_code == 201
    else:
        assert service.http.delete(upload).status_code == 204
    kept = stored()
    assert kept == (len(CONTENT) if ending == "used" else 0)
    assert put(new, CONTENT).status_code == 412
    assert stored() == kept
    assert_problem(service.http.get(upload), 404, "not_found")
    # Once the URL holds no longer, nothing is left of it.
    with service.database.write() as session:
        session.execute(update(IncomingUpload).values(expires_at=clock(-1)))
    sweep_uploads(service.database, service.services.store)
    assert [found.key for found in service.services.store.find("staged/")] == []
