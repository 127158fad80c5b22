"""Says where a file is from: the signed statement on a job's files, and the keys to trust.

The statement is in-toto's, the envelope DSSE's, the signature Ed25519's. A statement names every
file of its job by SHA-256, so one is enough for any of them.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ATTESTATION = "attestation.dsse.json"
"""The name of the statement among a job's files, and beside what was downloaded."""

TRUSTED_KEYS = "ATMC_TRUSTED_KEYS"
"""The variable that names files of public keys, divided as in PATH."""

PINNED = Path("~/.config/atmc/trusted-keys.pem")
"""Where public keys are looked for if the variable is not set."""

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PROVENANCE = "https://slsa.dev/provenance/v1"
MOST_BYTES = 1 << 20
"""The most that an attestation may have: a statement has a job's spec and a dozen files."""

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")


class NotVerified(Exception):
    """A file is not what was signed, or nothing shows that it is: a stable `code`, and a sentence.

    `malformed_attestation`, `unknown_key`, `bad_signature`, `unsigned`, `other_job`, `other_file`,
    `truncated` or `altered`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class NoVerifier(Exception):
    """The package `cryptography` is missing; the message says how to install it."""


@dataclass(frozen=True)
class TrustedKey:
    """A public key: its id, where it was found, and what checks a signature of it.

    `fits(signature, content)` tells whether the key made the signature.
    """

    id: str
    source: str
    fits: Callable[[bytes, bytes], bool]


@dataclass(frozen=True)
class SignedFile:
    """A file as the statement has it."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Attestation:
    """A statement whose signature fits."""

    key: TrustedKey
    job_id: str
    version: str
    started_at: str
    files: tuple[SignedFile, ...]

    def named(self, name: str) -> SignedFile | None:
        """Return the file of that name, if the job made one."""
        return next((file for file in self.files if file.name == name), None)


def read_keys(content: str, source: str) -> list[TrustedKey]:
    """Return the Ed25519 public keys of a text, each in PEM, one after the other.

    Raises ValueError if there is none, or something else, and `NoVerifier`.
    """
    blocks = list(_PEM.finditer(content))
    for block in blocks:
        if block[1] != "PUBLIC KEY":
            raise ValueError(
                f"{source}: a {block[1].lower()} where a public key is needed; of a private one: "
                "openssl pkey -in FILE -pubout"
            )
    if not blocks:
        raise ValueError(f"{source}: no public key in PEM (-----BEGIN PUBLIC KEY-----)")
    return [_read_key(block[0], source) for block in blocks]


def _read_key(pem: str, source: str) -> TrustedKey:
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )
    except ModuleNotFoundError as error:
        message = "signatures are checked by the package cryptography: pip install 'atmc[verify]'"
        raise NoVerifier(message) from error
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{source}: a public key in it cannot be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{source}: a public key in it is not an Ed25519 key")
    public = key

    def fits(signature: bytes, content: bytes) -> bool:
        try:
            public.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TrustedKey(hashlib.sha256(der).hexdigest(), source, fits)


def pinned_keys(named: Iterable[Path] = ()) -> list[TrustedKey]:
    """Return the keys of the files `named`, else of `ATMC_TRUSTED_KEYS`, else of `PINNED`.

    None of them is no error, and an empty list. Raises OSError for a file that cannot be read, and
    as `read_keys` does.
    """
    paths = list(named)
    if not paths:
        paths = [Path(part) for part in os.environ.get(TRUSTED_KEYS, "").split(os.pathsep) if part]
    if not paths and PINNED.expanduser().exists():
        paths = [PINNED.expanduser()]
    return [
        key for path in paths for key in read_keys(path.read_text("utf-8", "replace"), str(path))
    ]


def read_attestation(content: bytes, keys: Sequence[TrustedKey]) -> Attestation:
    """Return the statement of an envelope that one of the keys has signed; raises `NotVerified`.

    Nothing of the payload is looked at before its signature fits.
    """
    payload, signatures = _envelope(content)
    signed = _encoding(payload)
    for key in keys:
        if any(key.fits(signature, signed) for _, signature in signatures):
            return _statement(payload, key)
    hints = {hint for hint, _ in signatures}
    trusted = ", ".join(key.id[:16] for key in keys)
    if any(key.id in hints for key in keys):
        raise NotVerified(
            "bad_signature",
            "the signature does not fit: the attestation was altered after it was signed, or "
            f"signed with another key than it says (trusted: {trusted})",
        )
    said = ", ".join(sorted(hint[:16] for hint in hints))
    raise NotVerified("unknown_key", f"it is signed with {said}, which is not trusted: {trusted}")


def _envelope(content: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    if len(content) > MOST_BYTES:
        raise _malformed(f"it has {len(content):,} bytes")
    try:
        match json.loads(content):
            case {
                "payloadType": str(kind),
                "payload": str(payload),
                "signatures": [_, *_] as listed,
            } if kind == _PAYLOAD_TYPE and len(listed) <= 16:
                return _bytes(payload), [_signature(each) for each in listed]
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error) or type(error).__name__) from error
    raise _malformed("it is no DSSE envelope of an in-toto statement")


def _signature(entry: Any) -> tuple[str, bytes]:
    match entry:
        case {"keyid": str(hint), "sig": str(signature)} if _DIGEST.fullmatch(hint):
            return hint, _bytes(signature)
    raise ValueError("a signature without 'keyid' and 'sig'")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii"), validate=True)


def _encoding(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, which is what a signature signs."""
    kind = _PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _statement(payload: bytes, key: TrustedKey) -> Attestation:
    match _json(payload):
        case {
            "_type": str(kind),
            "predicateType": str(predicate),
            "subject": list(subject),
            "predicate": {
                "runDetails": {
                    "builder": {"version": {"atmc": str(version)}},
                    "metadata": {"invocationId": str(job_id), "startedOn": str(started_at)},
                }
            },
        } if (kind, predicate) == (_STATEMENT, _PROVENANCE):
            files = tuple(_file(each) for each in subject)
            return Attestation(key, job_id, version, started_at, files)
    raise _malformed("it is signed, but no statement of a version that this client knows")


def _file(entry: Any) -> SignedFile:
    match entry:
        case {
            "name": str(name),
            "digest": {"sha256": str(sha256)},
            "annotations": {"bytes": int(size)},
        }:
            return SignedFile(name, sha256, size)
    raise _malformed("a file in it has no name, no SHA-256 or no size")


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error) or type(error).__name__) from error


def _malformed(why: str) -> NotVerified:
    return NotVerified("malformed_attestation", f"{ATTESTATION} cannot be read: {why}")


def check_job(attestation: Attestation, job_id: str) -> None:
    """Raise `NotVerified` if the statement is of another job."""
    if attestation.job_id != job_id:
        raise NotVerified(
            "other_job", f"the attestation is of {attestation.job_id}, not of {job_id}"
        )


def check_file(attestation: Attestation, path: Path) -> SignedFile:
    """Return what the statement has of the file at `path`; raises `NotVerified`, and OSError.

    A file is known by its content. One that was renamed is still itself, but not under the name of
    another file of its job.
    """
    with path.open("rb") as file:
        sha256, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    return check_digest(attestation, path.name, sha256, size)


def check_digest(attestation: Attestation, name: str, sha256: str, size: int) -> SignedFile:
    """The same for a file of which the SHA-256 (hex) and the size in bytes are known."""
    job, named = attestation.job_id, attestation.named(name)
    same = next((file for file in attestation.files if file.sha256 == sha256), None)
    if same is not None and (named is None or named.sha256 == sha256):
        return named or same
    if same is not None:
        raise NotVerified("other_file", f"{name} is not {name} of {job}, but its {same.name}")
    if named is None:
        made = ", ".join(file.name for file in attestation.files)
        raise NotVerified(
            "other_file", f"{job} made no file like {name}, neither by name nor by content: {made}"
        )
    if size < named.bytes:
        raise NotVerified(
            "truncated",
            f"{name} has {size:,} of its {named.bytes:,} bytes: it did not arrive whole, or was "
            "altered",
        )
    raise NotVerified(
        "altered",
        f"{name} is not the file that {job} made: it was altered or is another job's. Its SHA-256 "
        f"is {sha256}, signed was {named.sha256}",
    )
