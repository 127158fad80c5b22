"""Models and data sets: stored while they arrive, once, and refused early."""

import hashlib
import http.client
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.api import files
from tests.api.conftest import Service, assert_problem, wait_until


def test_a_model_is_stored_under_its_digest_and_described(service: Service) -> None:
    content = files.safetensors_file()
    response = service.send_model(content, normalization='{"mean": [0.1307], "std": [0.3081]}')
    assert response.status_code == 201
    model = response.json()
    digest = hashlib.sha256(content).hexdigest()
    assert model["id"].startswith("mdl_")
    assert model["created_at"].endswith("Z")
    assert (model["sha256"], model["bytes"]) == (digest, len(content))
    assert (model["format"], model["filename"]) == ("safetensors", "m.safetensors")
    assert model["normalization"] == {"mean": [0.1307], "std": [0.3081]}
    assert model["dimensions"] == {"num_classes": 10}
    assert model["dense_weights"] == files.dense_weights()
    assert response.headers["Location"] == f"/models/{model['id']}"
    assert service.http.get(response.headers["Location"]).json() == model
    assert service.stored_files() == [f"blobs/{digest[:2]}/{digest}"]


def test_a_torch_file_is_a_model_whatever_its_name(service: Service) -> None:
    model = service.send_model(files.torch_file()).json()
    assert model["format"] == "torch"


def test_a_data_set_is_stored_and_described(service: Service) -> None:
    response = service.send_dataset()
    assert response.status_code == 201
    dataset = response.json()
    assert dataset["id"].startswith("dst_")
    assert dataset["arrays"]["x_train"] == {"dtype": "uint8", "shape": [20, 8, 8]}
    assert service.http.get(response.headers["Location"]).json() == dataset


def test_the_same_bytes_are_stored_once(service: Service) -> None:
    first, second = service.send_model().json(), service.send_model().json()
    assert first["id"] != second["id"]
    assert first["sha256"] == second["sha256"]
    assert len(service.stored_files()) == 1


def test_uploads_are_listed_newest_first_in_pages(service: Service) -> None:
    made = [service.send_model().json() for _ in range(3)]
    data = service.send_dataset().json()
    first = service.http.get("/models", params={"limit": 2}).json()
    assert first["data"] == [made[2], made[1]]
    assert first["has_more"]
    rest = service.http.get("/models", params={"cursor": first["next"]}).json()
    assert (rest["data"], rest["has_more"], rest["next"]) == ([made[0]], False, None)
    assert service.http.get("/datasets").json()["data"] == [data]


def test_uploads_are_found_by_digest_and_by_a_part_of_their_name(service: Service) -> None:
    model = service.send_model().json()

    def found(**query: str) -> list[str]:
        listed = service.http.get("/models", params=query).json()["data"]
        return [each["id"] for each in listed]

    assert found(sha256=model["sha256"]) == [model["id"]]
    assert found(sha256="0" * 64) == []
    assert found(q="M.SAFE") == found(q=model["id"][4:12]) == [model["id"]]
    assert found(q="%") == []
    for query, param in (({"sha256": "abc"}, "sha256"), ({"cursor": "eA=="}, "cursor")):
        assert_problem(service.http.get("/models", params=query), 422, "invalid_value", param)


def test_parts_may_come_in_any_order_and_in_small_pieces(service: Service) -> None:
    body = multipart(("architecture", None, b"digits_cnn"), ("file", "m", files.safetensors_file()))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 997):
            yield body[start : start + 997]

    response = service.http.post("/models", content=pieces(), headers=MULTIPART)
    assert response.status_code == 201
    assert response.json()["sha256"] == hashlib.sha256(files.safetensors_file()).hexdigest()


MULTIPART = {"Content-Type": "multipart/form-data; boundary=limit"}


def multipart(*parts: tuple[str, str | None, bytes]) -> bytes:
    body = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename else ""
        head = f'--limit\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + b"--limit--\r\n"


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"architecture": "lenet6"}, 422, "unknown_architecture", "architecture"),
        ({"architecture": "lenet"}, 422, "tensor_mismatch", "conv1.weight"),
        ({"normalization": "{"}, 400, "malformed_json", "normalization"),
        ({"normalization": "[1]"}, 400, "malformed_json", "normalization"),
        ({"normalization": '{"mean": [0]}'}, 422, "missing_field", "normalization.std"),
        (
            {"normalization": '{"mean": [0], "std": [1], "x": 1}'},
            422,
            "unknown_field",
            "normalization.x",
        ),
        (
            {"normalization": '{"mean": [0], "std": [0]}'},
            422,
            "invalid_value",
            "normalization.std.0",
        ),
        ({"normalization": '{"mean": [0, 1], "std": [1]}'}, 422, "invalid_value", "normalization"),
        (
            {"normalization": '{"mean": [0, 0], "std": [1, 1]}'},
            422,
            "invalid_value",
            "normalization.mean",
        ),
        ({"normalization": '{"mean": [NaN], "std": [1]}'}, 400, "malformed_json", "normalization"),
        (
            {"normalization": '{"mean": [1e999], "std": [1]}'},
            400,
            "malformed_json",
            "normalization",
        ),
        ({"colour": "red"}, 422, "unknown_field", "colour"),
    ],
)
def test_a_form_that_is_wrong_is_refused_and_nothing_is_kept(
    shared: Service, fields: dict[str, str], status: int, code: str, param: str
) -> None:
    assert_problem(shared.send_model(**fields), status, code, param)
    assert shared.stored_files() == []


def test_an_unknown_architecture_is_answered_with_the_known_ones(shared: Service) -> None:
    detail = assert_problem(shared.send_model(architecture="lenet6"), 422, "unknown_architecture")
    for name in files.ARCHITECTURES:
        assert name in detail


@pytest.mark.parametrize("missing", ["file", "architecture"])
def test_a_part_that_is_missing_is_named(shared: Service, missing: str) -> None:
    parts = {"file": files.safetensors_file(), "architecture": b"digits_cnn"}
    body = multipart(*((n, n, content) for n, content in parts.items() if n != missing))
    response = shared.http.post("/models", content=body, headers=MULTIPART)
    assert_problem(response, 422, "missing_field", missing)
    assert shared.stored_files() == []


def test_a_part_that_comes_twice_is_refused(shared: Service) -> None:
    body = multipart(*2 * [("file", "f", files.safetensors_file())])
    response = shared.http.post("/models", content=body, headers=MULTIPART)
    assert_problem(response, 422, "invalid_value", "file")
    assert shared.stored_files() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--limit\r\n",
        b"no boundary at all",
        multipart(("file", "f", b"x"))[:-8],
        b"--limit\r\nContent-Disposition: form-data\r\n\r\nx\r\n--limit--\r\n",
        b"--limit\r\nContent-Type: text/plain\r\n\r\nx\r\n--limit--\r\n",
        b"--limit\r\n" + b"A: b\r\n" * 100 + b"\r\nx\r\n--limit--\r\n",
        b"--limit\r\nContent-Disposition: " + b"a" * 100_000 + b"\r\n\r\nx\r\n--limit--\r\n",
    ],
)
def test_a_body_that_is_not_multipart_is_refused(shared: Service, body: bytes) -> None:
    response = shared.http.post("/models", content=body, headers=MULTIPART)
    assert_problem(response, 400, "malformed_multipart")
    assert shared.stored_files() == []


@pytest.mark.parametrize("path", ["/models", "/datasets", "/jobs"])
def test_another_content_type_is_refused(shared: Service, path: str) -> None:
    response = shared.http.post(path, content=b"<x/>", headers={"Content-Type": "text/xml"})
    assert_problem(response, 415, "unsupported_media_type")


def test_a_boundary_that_is_missing_or_too_long_is_refused(shared: Service) -> None:
    for boundary in ("", "; boundary=" + "b" * 1000):
        headers = {"Content-Type": "multipart/form-data" + boundary}
        response = shared.http.post("/models", content=b"x", headers=headers)
        assert_problem(response, 400, "malformed_multipart")


def test_a_text_part_is_not_read_without_end(shared: Service) -> None:
    body = multipart(("architecture", None, b"a" * 500_000))
    response = shared.http.post("/models", content=body, headers=MULTIPART)
    assert_problem(response, 422, "invalid_value", "architecture")


def test_a_file_that_says_it_is_too_large_is_refused_before_it_is_sent(shared: Service) -> None:
    connection = http.client.HTTPConnection(shared.http.base_url.host, shared.http.base_url.port)
    connection.putrequest("POST", "/models")
    connection.putheader("Content-Type", MULTIPART["Content-Type"])
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    response = connection.getresponse()
    assert (response.status, json.load(response)["code"]) == (413, "file_too_large")


def test_a_file_over_the_limit_is_refused_with_the_limit(shared: Service) -> None:
    # Below the limit of the whole request, above that of the file.
    content = bytes(shared.settings.max_dataset_bytes + 1)
    detail = assert_problem(shared.send_dataset(content), 413, "file_too_large", "file")
    assert str(shared.settings.max_dataset_bytes) in detail
    assert shared.stored_files() == []


def test_a_body_of_unknown_length_that_goes_on_is_answered_before_it_ends(
    shared: Service,
) -> None:
    head = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    status, sent = send_without_end(shared, "/datasets", head, b"x" * 65_536)
    assert status == 413
    assert sent < 20 * shared.settings.max_dataset_bytes
    assert shared.stored_files() == []


@pytest.mark.parametrize(
    ("head", "filler"),
    [
        (b"\r\n", b"\r\n"),
        (b'--limit\r\nContent-Disposition: form-data; name="', b"a"),
        (b'--limit\r\nContent-Disposition: form-data; name="architecture"\r\n\r\n', b"a"),
    ],
    ids=["preamble", "header", "text"],
)
def test_nothing_else_of_a_body_goes_on_without_end_either(
    shared: Service, head: bytes, filler: bytes
) -> None:
    status, _ = send_without_end(shared, "/models", head, filler * 20_000)
    assert status in (400, 413, 422)


def send_without_end(service: Service, path: str, head: bytes, filler: bytes) -> tuple[int, int]:
    """Send chunks until the server answers; returns its status and what had been sent by then."""
    address = (service.http.base_url.host, service.http.base_url.port)
    with socket.create_connection(address, timeout=10) as connection:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked"]
        lines.append(f"Content-Type: {MULTIPART['Content-Type']}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        sent = 0
        for data in [head, *[filler] * 2000]:
            try:
                connection.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            except ConnectionError:
                break
            sent += len(data)
        answer = connection.recv(1000)
    return int(answer.split()[1]), sent


def test_an_upload_that_breaks_off_leaves_nothing(service: Service) -> None:
    service.settings.max_model_bytes = 2**30
    address = (service.http.base_url.host, service.http.base_url.port)
    with socket.create_connection(address) as connection:
        head = "POST /models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000000\r\n"
        connection.sendall(f"{head}Content-Type: {MULTIPART['Content-Type']}\r\n\r\n".encode())
        connection.sendall(multipart(("file", "f", bytes(30_000_000)))[:-10])
        if (service.settings.home / "objects").exists():  # on S3 it has no key before its end
            wait_until(service.stored_files)
    wait_until(lambda: service.stored_files() == [])


def test_a_client_that_goes_on_sending_still_reads_the_refusal(shared: Service) -> None:
    def body() -> Iterator[bytes]:
        yield b'--limit\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(300):
            yield b"x" * 65_536

    with httpx.Client(base_url=shared.http.base_url, timeout=20) as client:
        response = client.post("/datasets", content=body(), headers=MULTIPART)
    assert_problem(response, 413, "file_too_large")
    assert response.headers["Connection"] == "close"


def test_an_unknown_id_is_not_found(shared: Service) -> None:
    for path in ("/models/mdl_0", "/datasets/dst_0"):
        assert_problem(shared.http.get(path), 404, "not_found")
    assert_problem(shared.http.get("/models/%00"), 422, "invalid_value", "model_id")
