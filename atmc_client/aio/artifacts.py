"""The calls on the files that a job made, and on who signed them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from atmc_client.aio.calls import Calls
from atmc_client.aio.transfer import fetch
from atmc_client.attestation import (
    ATTESTATION,
    MOST_BYTES,
    NotVerified,
    TrustedKey,
    check_digest,
    check_job,
    read_attestation,
    read_keys,
)
from atmc_client.errors import NotFound
from atmc_client.types.answers import Artifact, SigningKey
from atmc_client.uploads import OnBytes


class Artifacts(Calls):
    """The calls on the files that a job made, and on who signed them."""

    async def artifacts(self, job_id: str) -> list[Artifact]:
        """The files that the job has made so far.

        Args:
            job_id: which.

        Raises:
            NotFound: there is no such job.
        """
        return await self._all(f"/jobs/{job_id}/artifacts")

    async def download(
        self,
        job_id: str,
        folder: str | Path = ".",
        names: Sequence[str] = (),
        *,
        on_bytes: OnBytes | None = None,
        keys: Sequence[TrustedKey] = (),
    ) -> list[Path]:
        """Fetch the job's files.

        A file is complete and its SHA-256 checked when it appears under its name; until then it is
        `NAME.part`, from which an interrupted download goes on. One that is there is not fetched
        again. The signed attestation comes along, if there is one.

        Args:
            job_id: which.
            folder: where to; it is made if it is not there.
            names: only these files; none is all.
            on_bytes: called with a file's name, its bytes there and its bytes in all.
            keys: nothing is fetched before the files, as the service lists them, are those that
                were signed with one of these keys. Without any nobody's signature is asked for.

        Returns:
            The files' paths.

        Raises:
            NotFound: there is no such job, or it has not made a file that `names` has.
            NotVerified: with `keys`, where they are not; what is there stays as it is.
            DigestMismatch: a file arrived damaged; it was dropped.
        """
        listed = {artifact["name"]: artifact for artifact in await self.artifacts(job_id)}
        for name in names:
            if name not in listed:
                known = ", ".join(listed) or "none yet"
                raise NotFound(404, "not_found", name, f"{job_id} has no such file, only: {known}")
        wanted = list(dict.fromkeys(names or listed))
        if keys and wanted:
            await self._check(
                job_id, [listed[name] for name in wanted], listed.get(ATTESTATION), keys
            )
        if ATTESTATION in listed and ATTESTATION not in wanted:
            wanted.append(ATTESTATION)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return [await fetch(self._transport, listed[name], folder, on_bytes) for name in wanted]

    async def _check(
        self,
        job_id: str,
        wanted: Sequence[Artifact],
        signed: Artifact | None,
        keys: Sequence[TrustedKey],
    ) -> None:
        """Raise `NotVerified` unless the listed files are those of the job's attestation."""
        if signed is None:
            raise NotVerified("unsigned", f"{job_id} has no {ATTESTATION}: nobody signed its files")
        content = await self.attestation(job_id)
        if hashlib.sha256(content).hexdigest() != signed["sha256"]:
            raise NotVerified("altered", f"{ATTESTATION} of {job_id} is not the one that is listed")
        statement = read_attestation(content, keys)
        check_job(statement, job_id)
        for each in wanted:
            if each["name"] != ATTESTATION:
                check_digest(statement, each["name"], each["sha256"], each["bytes"])

    async def attestation(self, job_id: str) -> bytes:
        """The signed statement on the job's files, as it is stored.

        Args:
            job_id: which.

        Raises:
            NotFound: there is none.
        """
        path = f"/jobs/{job_id}/artifacts/{ATTESTATION}"
        async with self._transport.exchange("GET", path, dict) as response:
            content = b""
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MOST_BYTES:
                    break  # It is no attestation, and is refused as such.
            return content

    async def signing_keys(self) -> list[TrustedKey]:
        """The public keys that the service lists: only as trustworthy as the way to it.

        Raises:
            ValueError: one of them is none.
            NoVerifier: the package `cryptography` is missing.
        """
        listed: list[SigningKey] = await self._all("/signing-keys")
        return [
            key
            for each in listed
            for key in read_keys(each["public_key"], f"listed by {self.url}: trusts who answers")
        ]
