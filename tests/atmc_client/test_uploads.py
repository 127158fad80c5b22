"""A large file is sent in pieces, and what has arrived is not sent again."""

import asyncio
import hashlib

import pytest

from atmc_client import AsyncClient, Client, DigestMismatch, InvalidRequest, uploads
from tests.atmc_client.test_reuse import SPEC
from tests.atmc_client.test_transport import answer, reset

PIECE = 4_000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch, tmp_path):
    """Have the files of a test be large ones, and its uploads be remembered in its own folder."""
    monkeypatch.setattr(uploads, "LARGE_BYTES", 1_000)
    monkeypatch.setattr(uploads, "PIECE_BYTES", PIECE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def model(new_files):
    """A network's file that nobody has sent, of several pieces."""
    path = new_files / "model.safetensors"
    assert path.stat().st_size > 3 * PIECE
    return path


@pytest.fixture
def client(api_url):
    with Client(api_url) as client:
        yield client


class Interrupted(BaseException):
    """As if the process ended."""


def interrupted_at(least):
    def on_bytes(name, there, total):
        if there >= least:
            raise Interrupted

    return on_bytes


def remembered(tmp_path):
    return list((tmp_path / "state" / "atmc" / "uploads").iterdir())


def test_a_file_goes_in_pieces_and_says_how_far_it_is(client, model, tmp_path):
    told = []
    made = client.upload_model(model, "digits_cnn", on_bytes=lambda *state: told.append(state))
    size = model.stat().st_size
    steps = [*range(0, size, PIECE), size]
    assert told == [("model.safetensors", there, size) for there in steps]
    assert made["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert made["filename"] == "model.safetensors"
    assert client.find_model(model, "digits_cnn") == made["id"]
    assert remembered(tmp_path) == []


def test_another_process_goes_on_where_one_ended(client, api_url, model):
    with pytest.raises(Interrupted):
        client.upload_model(model, "digits_cnn", on_bytes=interrupted_at(2 * PIECE))
    told = []
    with Client(api_url) as later:
        made = later.upload_model(
            model, "digits_cnn", on_bytes=lambda name, there, total: told.append(there)
        )
    assert told[0] == 2 * PIECE
    assert made["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


def test_so_does_asyncio_s_client_in_a_submit(client, api_url, new_files, model):
    with pytest.raises(Interrupted):
        client.upload_model(model, "digits_cnn", on_bytes=interrupted_at(PIECE))
    told = []

    async def submitted():
        async with AsyncClient(api_url) as later:
            return await later.submit(
                model,
                "digits_cnn",
                new_files / "data.npz",
                SPEC,
                labels={"team": "vision"},
                on_bytes=lambda *state: told.append(state),
            )

    job = asyncio.run(submitted())
    assert told[0] == (model.name, PIECE, model.stat().st_size)
    assert told[-1][0] == "data.npz"
    assert job["labels"] == {"team": "vision"}
    assert client.find_model(model, "digits_cnn") == job["model_id"]


def test_an_upload_that_the_service_has_no_more_begins_anew(client, api_url, model, tmp_path):
    begun = uploads.BegunUpload(api_url, uploads.sha256_of(model))
    begun.write("upl_" + "0" * 32)
    told = []
    client.upload_model(model, "digits_cnn", on_bytes=lambda _, there, __: told.append(there))
    assert told[0] == 0
    begun.write("../../keys\n")
    assert begun.read() is None
    assert len(remembered(tmp_path)) == 1


def test_a_refused_file_is_not_sent_again_to_be_refused_again(client, new_files, model):
    for first in (0, model.stat().st_size):
        told = []
        with pytest.raises(InvalidRequest):
            client.upload_model(model, "lenet", on_bytes=lambda _, there, __: told.append(there))  # noqa: B023
        assert told[0] == first
    # Nor is what a refused job was to be made of.
    wrong = SPEC | {"target": {"density": 2, "bits": 4}}
    with pytest.raises(InvalidRequest):
        client.submit(model, "digits_cnn", new_files / "data.npz", wrong)
    assert client.find_model(model, "digits_cnn") is not None


def test_a_file_that_changes_on_the_way_is_dropped(client, model):
    def change(name, there, total):
        if there == 0:
            content = bytearray(model.read_bytes())
            content[-1] ^= 1
            model.write_bytes(content)

    with pytest.raises(DigestMismatch, match="changed while it was sent"):
        client.upload_model(model, "digits_cnn", on_bytes=change)
    assert client.find_model(model, "digits_cnn") is None


def test_a_piece_whose_answer_was_lost_is_not_taken_twice(scripted, tmp_path):
    file = tmp_path / "data.npz"
    file.write_bytes(bytes(PIECE + 1))
    sha256 = uploads.sha256_of(file)
    made = {"id": "dst_1", "sha256": sha256, "bytes": PIECE + 1}

    def begun(handler):
        handler.send_response(201)
        handler.send_header("Location", "/uploads/upl_1")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def kept(handler):
        handler.send_response(204)
        handler.send_header("Upload-Offset", str(PIECE + 1))
        handler.end_headers()

    conflict = {"code": "offset_conflict", "detail": "elsewhere"}
    state = {"id": "upl_1", "bytes": PIECE + 1, "received": PIECE}
    scripted.script = [begun, reset, answer(409, conflict), answer(200, state), kept]
    scripted.script.append(answer(201, made))
    with Client(scripted.url) as client:
        assert client.upload_dataset(file)["id"] == "dst_1"
    sent = [each.headers["Upload-Offset"] for each in scripted.seen if each.method == "PATCH"]
    assert sent == ["0", "0", str(PIECE)]
    assert len(scripted.seen[-2].body) == 1
