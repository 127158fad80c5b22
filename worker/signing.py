"""Signs what a job made, so that who deploys a file knows where it is from.

One statement a job names every file by its SHA-256: an in-toto statement with SLSA's provenance, in
a DSSE envelope, the forms that others' tools read, too. Ed25519 signs without chance, and nothing
in the statement is of one attempt alone, so the same files of the same job have the same signature
however often they are published. It names no tenant: the file goes wherever the results go.

https://github.com/in-toto/attestation, https://slsa.dev/spec/v1.0/provenance,
https://github.com/secure-systems-lab/dsse
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from importlib.metadata import version
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from jobstore.leases import NewArtifact
from jobstore.settings import Settings
from jobstore.tables import Job

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
JOB_TYPE = "urn:atmc:job:v1"
BUILDER = "urn:atmc:worker"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class PublishedKey:
    """The public half as the catalogue has it, for `GET /signing-keys`."""

    name: str
    document: dict[str, Any]
    kind: str = "signing_key"


class Signer:
    """Signs with one Ed25519 key.

    Attributes:
        key_id: the SHA-256 (hex) of the public key as SubjectPublicKeyInfo in DER.
        published: the public half.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = hashlib.sha256(der).hexdigest()
        self.published = PublishedKey(self.key_id, {"public_key": pem.decode()})

    @classmethod
    def from_settings(cls, settings: Settings) -> "Signer | None":
        """Read the key of `ATMC_SIGNING_KEY_FILE`; None if it is not set.

        Raises ValueError, which shows nothing of the file, if that is no such key.
        """
        path = settings.signing_key_file
        if path is None:
            return None
        make = "make one: openssl genpkey -algorithm ed25519 -out FILE"
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise ValueError(f"ATMC_SIGNING_KEY_FILE: {path}: {error.strerror}; {make}") from error
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The error's own text may quote the file.
            raise ValueError(
                f"ATMC_SIGNING_KEY_FILE: {path} is no private key in PEM (PKCS #8) without a "
                f"password; {make}"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"ATMC_SIGNING_KEY_FILE: {path} holds no Ed25519 key; {make}")
        return cls(key)

    def attest(self, job: Job, inputs: dict[str, str], made: Sequence[NewArtifact]) -> bytes:
        """Return the signed envelope of the job's files.

        `inputs` are the SHA-256 (hex) of what the job was made of, by name.
        """
        payload = _json(statement(job, inputs, made))
        signature = self._key.sign(pre_authentication_encoding(payload))
        envelope = {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}],
        }
        return _json(envelope) + b"\n"


def statement(job: Job, inputs: dict[str, str], made: Sequence[NewArtifact]) -> dict[str, Any]:
    """Return what is signed: the files, and the job, the inputs and the release they come from."""
    assert job.started_at is not None, "a job that made something was claimed"
    return {
        "_type": STATEMENT,
        "subject": [
            {
                "name": each.name,
                "digest": {"sha256": each.sha256},
                "annotations": {"bytes": each.bytes},
            }
            for each in sorted(made, key=lambda each: each.name)
        ],
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": JOB_TYPE,
                "externalParameters": {"spec": job.spec},
                "resolvedDependencies": [
                    {"name": name, "digest": {"sha256": digest}} for name, digest in inputs.items()
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"atmc": version("atmc")}},
                # The first attempt's start: every later one has the same.
                "metadata": {
                    "invocationId": job.id,
                    "startedOn": f"{job.started_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                },
            },
        },
    }


def pre_authentication_encoding(payload: bytes) -> bytes:
    """Return the bytes that a DSSE signature signs: the payload with its type and both lengths."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
