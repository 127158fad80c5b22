"""Results are signed as they are published, and whoever has the public key finds every change."""

import base64
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from sqlalchemy import update

from atmc_client.cli import main
from jobstore import artifacts, leases
from jobstore.catalogue import publish
from jobstore.objects import blob_key
from jobstore.settings import Settings
from jobstore.tables import Artifact
from tests.api.conftest import running
from tests.bench import Bench
from tests.conftest import EMBEDDED
from tests.worker.conftest import SUCCEED
from worker.folder import ATTESTATION
from worker.signing import Signer

NAMES = ("model.atmc", "model.onnx", "report.json")
SPEC = SUCCEED | {"results": NAMES, "report": '{"version": 2}'}

pytestmark = pytest.mark.parametrize("column", [EMBEDDED])


def write_key(path: Path, key: Any = None) -> Path:
    """Write a private key to `path`, and its public half beside it, `.pub`; returns that."""
    key = key or Ed25519PrivateKey.generate()
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key.private_bytes(*pem))
    public = path.with_suffix(".pub")
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(shown)
    return public


@pytest.fixture
def public(bench: Bench, supervisor) -> Path:
    """The public key of a supervisor that signs."""
    private = bench.settings.home / "signing.pem"
    public = write_key(private)
    supervisor.signer = Signer.from_settings(Settings(signing_key_file=private))
    return public


@pytest.fixture
def published(bench: Bench, public: Path, run, tmp_path: Path) -> Callable[[str], Path]:
    """Runs a job and puts its files into a folder of that name; returns the folder."""

    def publish_one(name: str) -> Path:
        job_id = bench.add_job(SPEC, model=name.encode())
        run()
        folder = tmp_path / name
        folder.mkdir()
        with bench.database.read() as session:
            for each in artifacts.list_artifacts(session, job_id):
                bench.store.get_file(blob_key(each.sha256), folder / each.name)
        return folder

    return publish_one


Atmc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def atmc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Atmc:
    """Runs the command line; returns its exit code, output and errors."""
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("ATMC_TRUSTED_KEYS", raising=False)

    def run_it(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["atmc", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_it


def payload_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    envelope = json.loads((folder / ATTESTATION).read_text())
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


def test_a_published_job_is_signed_in_the_form_that_others_tools_read(published, public) -> None:
    folder = published("one")
    envelope, statement = payload_of(folder)
    key_id = envelope["signatures"][0]["keyid"]
    key = SSlibKey(key_id, "ed25519", "ed25519", {"public": raw(public)})
    read = Envelope.from_dict(envelope)
    assert read.verify([key], 1).keys() == {key_id}
    read.payload += b" "
    with pytest.raises(VerificationError):
        read.verify([key], 1)
    assert [each["name"] for each in statement["subject"]] == list(NAMES)
    build = statement["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {"spec": json.loads(json.dumps(SPEC))}
    assert [each["name"] for each in build["resolvedDependencies"]] == ["model", "dataset"]
    # The file goes to whoever gets the results: it says nothing of whose they are.
    assert "tenant" not in json.dumps(statement)


def raw(public: Path) -> str:
    der = base64.b64decode("".join(public.read_text().splitlines()[1:-1]))
    return der[-32:].hex()


def test_what_is_published_again_after_a_crash_is_signed_the_same(
    bench, public, run, supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed, attest, finish = [], supervisor.signer.attest, leases.finish

    def noted(*arguments: Any) -> bytes:
        signed.append(attest(*arguments))
        return signed[-1]

    def crash(*_: Any, **__: Any) -> list[str]:
        raise RuntimeError("the worker is killed before it is written down")

    monkeypatch.setattr(supervisor.signer, "attest", noted)
    job_id = bench.add_job(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(leases, "finish", crash)
        run()
    assert bench.job(job_id).state == "queued"
    assert leases.finish is finish
    run()
    assert (bench.job(job_id).state, bench.job(job_id).attempt) == ("succeeded", 2)
    first, second = signed
    assert first == second
    with bench.database.read() as session:
        kept = artifacts.get_artifact(session, job_id, ATTESTATION)
    with bench.store.open(blob_key(kept.sha256)) as file:
        assert file.read() == first


def test_every_file_is_known_alone_and_offline(published, public, atmc, tmp_path) -> None:
    folder = published("one")
    for name in (*NAMES, ATTESTATION):
        code, out, err = atmc(
            "--server", "http://127.0.0.1:9", "verify", folder / name, "--key", public
        )
        assert (code, err) == (0, ""), err
        assert "verified" in out
    # Away from its folder, under another name, with the attestation named.
    moved = (folder / "model.atmc").rename(tmp_path / "classifier-3.bin")
    given = ("verify", moved, "--key", public)
    code, _, err = atmc(*given)
    assert (code, "--attestation" in err) == (2, True)
    code, out, _ = atmc(*given, "--attestation", folder / ATTESTATION, "--json")
    said = json.loads(out)
    assert (code, said["verified"], said["name"]) == (0, True, "model.atmc")
    assert said["key_source"] == str(public)
    assert len(said["key_id"]) == 64


def alter(folder: Path, _: Path) -> None:
    path = folder / "model.atmc"
    path.write_bytes(path.read_bytes().replace(b"s", b"S"))


def lengthen(folder: Path, _: Path) -> None:
    with (folder / "model.atmc").open("ab") as file:
        file.write(b"\0")


def truncate(folder: Path, _: Path) -> None:
    path = folder / "model.atmc"
    path.write_bytes(path.read_bytes()[:-1])


def swap_within(folder: Path, _: Path) -> None:
    (folder / "report.json").replace(folder / "model.atmc")


def swap_in_from_another_job(folder: Path, other: Path) -> None:
    (other / "report.json").replace(folder / "model.atmc")


def take_another_jobs_attestation(folder: Path, other: Path) -> None:
    (other / ATTESTATION).replace(folder / ATTESTATION)


def change_statement(folder: Path, _: Path) -> None:
    envelope, statement = payload_of(folder)
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (folder / ATTESTATION).write_text(json.dumps(envelope))


def sign_with_another_key(folder: Path, _: Path) -> None:
    envelope, _statement = payload_of(folder)
    envelope["signatures"][0]["keyid"] = "ab" * 32
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    (folder / ATTESTATION).write_text(json.dumps(envelope))


def cut_attestation(folder: Path, _: Path) -> None:
    path = folder / ATTESTATION
    path.write_bytes(path.read_bytes()[:-20])


def empty_attestation(folder: Path, _: Path) -> None:
    (folder / ATTESTATION).write_text("{}")


CHANGES = [
    (alter, "altered", "was altered or is another job's"),
    (lengthen, "altered", "was altered"),
    (truncate, "truncated", "has 4 of its 5 bytes"),
    (swap_within, "other_file", "but its report.json"),
    (swap_in_from_another_job, "altered", "another job's"),
    (take_another_jobs_attestation, "other_job", "not of job_"),
    (change_statement, "bad_signature", "altered after it was signed"),
    (sign_with_another_key, "unknown_key", "abababab"),
    (cut_attestation, "malformed_attestation", "cannot be read"),
    (empty_attestation, "malformed_attestation", "no DSSE envelope"),
]


def test_whatever_was_changed_is_refused_and_said(published, public, atmc, tmp_path) -> None:
    one, two = published("one"), published("two")
    # The other job's report differs.
    (two / "report.json").write_text('{"version": 2, "other": 1}')
    job_id = payload_of(one)[1]["predicate"]["runDetails"]["metadata"]["invocationId"]
    for change, code, said in CHANGES:
        folder, other = tmp_path / change.__name__, tmp_path / f"beside {change.__name__}"
        shutil.copytree(one, folder)
        change(folder, shutil.copytree(two, other))
        given = ("verify", folder / "model.atmc", "--key", public, "--job", job_id)
        status, out, err = atmc(*given)
        assert (status, out) == (1, ""), change
        assert err.startswith(f"error: {code}: "), err
        assert said in err
        status, out, _ = atmc(*given, "--json")
        document = json.loads(out)
        assert (status, document["verified"], document["code"]) == (1, False, code)


def test_keys_are_trusted_by_file_variable_or_flag_and_several_at_a_time(
    published, public, atmc, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = published("one") / "model.atmc"
    old = write_key(tmp_path / "old.pem")
    both = tmp_path / "both.pub"
    both.write_text(f"the present one:\n{public.read_text()}the one before:\n{old.read_text()}")
    assert atmc("verify", model, "--key", both)[0] == 0
    assert atmc("verify", model, "--key", old, "--key", public)[0] == 0
    assert atmc("verify", model, "--key", old)[0] == 1
    monkeypatch.setenv("ATMC_TRUSTED_KEYS", f"{old}:{public}")
    assert atmc("verify", model)[0] == 0
    monkeypatch.setenv("ATMC_TRUSTED_KEYS", str(tmp_path / "missing"))
    assert atmc("verify", model)[0] == 2
    monkeypatch.delenv("ATMC_TRUSTED_KEYS")
    status, _, err = atmc("verify", model)
    assert (status, "--key-from-service" in err) == (2, True)
    pinned = tmp_path / ".config/atmc/trusted-keys.pem"
    pinned.parent.mkdir(parents=True)
    pinned.write_bytes(public.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert atmc("verify", model)[0] == 0


def test_what_is_no_public_key_is_wrong_usage(published, atmc, tmp_path) -> None:
    model, path = published("one") / "model.atmc", tmp_path / "key"
    elliptic = write_key(tmp_path / "elliptic", generate_private_key(SECP256R1()))
    write_key(tmp_path / "private")
    for content, said in (
        ("nothing", "no public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
        ((tmp_path / "private").read_text(), "openssl pkey -in FILE -pubout"),
        (elliptic.read_text(), "not an Ed25519 key"),
    ):
        path.write_text(content)
        status, _, err = atmc("verify", model, "--key", path)
        assert status == 2
        assert said in err


@pytest.fixture
def server(bench: Bench, published, public, supervisor) -> Iterator[tuple[str, str]]:
    """A running API with a published job, and that job's id."""
    folder = published("one")
    job_id = payload_of(folder)[1]["predicate"]["runDetails"]["metadata"]["invocationId"]
    with bench.database.write() as session:
        publish(session, [supervisor.signer.published])
    bench.settings.requests_per_minute = None
    for service in running(bench.settings):
        yield str(service.http.base_url), job_id


def test_a_download_brings_the_attestation_and_takes_nothing_that_was_not_signed(
    server, bench, public, atmc, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, job_id = server
    target = tmp_path / "down"
    status, out, err = atmc("--server", url, "download", job_id, "model.atmc", "-o", target)
    assert (status, {path.name for path in target.iterdir()}) == (0, {"model.atmc", ATTESTATION})
    assert "no key to trust is known" in err
    assert atmc("--server", url, "verify", target / "model.atmc", "--key-from-service")[0] == 0
    lone = (target / "model.atmc").rename(tmp_path / "model.atmc")
    assert atmc("--server", url, "verify", lone, "--job", job_id, "--key", public)[0] == 0
    monkeypatch.setenv("ATMC_TRUSTED_KEYS", str(public))
    status, _, err = atmc("--server", url, "download", job_id, "-o", target)
    assert (status, err) == (0, "verified: signed with a key that you trust\n")
    # Whoever could change rows and store offers another file under the name.
    (target / "model.onnx").write_text("what was here before")
    with bench.database.write() as session:
        report = artifacts.get_artifact(session, job_id, "report.json")
        other = {"sha256": report.sha256, "bytes": report.bytes}
        which = update(Artifact).where(Artifact.job_id == job_id, Artifact.name == "model.onnx")
        session.execute(which.values(**other))
    status, out, err = atmc("--server", url, "download", job_id, "model.onnx", "-o", target)
    assert (status, out) == (1, "")
    assert "other_file: model.onnx is not model.onnx" in err
    assert (target / "model.onnx").read_text() == "what was here before"
    assert not list(target.glob("*.part"))
    # Or takes the attestation away.
    with bench.database.write() as session:
        session.delete(artifacts.get_artifact(session, job_id, ATTESTATION))
    status, _, err = atmc("--server", url, "download", job_id, "-o", target)
    assert (status, "unsigned: " in err) == (1, True)
    assert atmc("--server", url, "download", job_id, "-o", target, "--unverified")[0] == 0


def test_a_key_is_listed_until_an_admin_takes_it_off(bench, public, supervisor) -> None:
    with bench.database.write() as session:
        publish(session, [supervisor.signer.published])
    for service in running(bench.settings):
        (listed,) = service.http.get("/signing-keys").json()["data"]
        assert listed["id"] == supervisor.signer.key_id
        assert listed["public_key"] == public.read_text()
        assert service.http.delete(f"/signing-keys/{listed['id']}").status_code == 204
        assert service.http.get("/signing-keys").json()["data"] == []
        assert service.http.delete(f"/signing-keys/{listed['id']}").status_code == 404


@pytest.mark.parametrize("kind", ["missing", "empty", "sealed", "elliptic", "public"])
def test_a_worker_with_a_key_that_signs_nothing_says_so_and_shows_nothing(
    column, tmp_path, kind: str
) -> None:
    path = tmp_path / "key.pem"
    key = Ed25519PrivateKey.generate()
    if kind == "elliptic":
        write_key(path, generate_private_key(SECP256R1()))
    elif kind == "public":
        path = write_key(path)
    elif kind == "sealed":
        how = BestAvailableEncryption(b"hush")
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    elif kind == "empty":
        path.touch()
    with pytest.raises(ValueError, match="ATMC_SIGNING_KEY_FILE") as refused:
        Signer.from_settings(Settings(signing_key_file=path))
    assert "openssl genpkey -algorithm ed25519" in str(refused.value)
    assert "BEGIN" not in str(refused.value)
    assert Signer.from_settings(Settings()) is None
