"""Files that arrive whole: resumed where they broke off, checked before they take their name."""

from pathlib import Path

import httpx

from atmc_client.aio.transport import Transport
from atmc_client.aio.waits import in_thread
from atmc_client.errors import DigestMismatch, ServerUnreachable
from atmc_client.types.answers import Artifact
from atmc_client.uploads import OnBytes, sha256_of

# Each break after bytes arrived is one try; a transfer that goes nowhere ends after these many.
BREAKS = 5


async def fetch(
    transport: Transport,
    artifact: Artifact,
    folder: Path,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Download one listed artifact (`name`, `bytes`, `sha256`, `links.self`) into `folder`.

    A file that is already there with the right digest is not fetched again. Raises
    `DigestMismatch`, `ApiError`, `ServerUnreachable`; what had arrived stays in `NAME.part`.
    """
    target = folder / Path(artifact["name"]).name
    if target.exists() and await in_thread(sha256_of, target) == artifact["sha256"]:
        return target
    part = target.with_name(target.name + ".part")
    for remaining in reversed(range(BREAKS)):
        try:
            await _append(transport, artifact, part, on_bytes)
            break
        except httpx.TransportError as error:
            if remaining == 0:
                raise ServerUnreachable(transport.url, error) from error
    if await in_thread(sha256_of, part) != artifact["sha256"]:
        part.unlink()
        raise DigestMismatch(f"{artifact['name']} arrived damaged and was dropped: try again")
    return part.rename(target)


async def _append(
    transport: Transport,
    artifact: Artifact,
    part: Path,
    on_bytes: OnBytes | None,
) -> None:
    total: int = artifact["bytes"]
    there = part.stat().st_size if part.exists() else 0
    if there > total:
        part.unlink()
        there = 0
    if there == total and part.exists():
        return
    headers = {"Range": f"bytes={there}-"} if there else {}
    path: str = artifact["links"]["self"]
    async with transport.exchange("GET", path, lambda: {"headers": headers}) as response:
        # A server that ignores the range sends the whole file.
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        there = there if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            # Unbuffered, so that a break loses nothing of what has arrived.
            async for chunk in response.aiter_bytes():
                file.write(chunk)
                there += len(chunk)
                if on_bytes is not None:
                    on_bytes(artifact["name"], there, total)
