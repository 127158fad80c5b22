"""The speed of an upload, compared with hashing and copying alone in the same run.

`python -m benchmarks.upload` sends an `.npz` file of `--mib` mebibytes to an API process: once in a
multipart request, and once by tus in requests of `--chunk-mib` each. The last line of its output is
a JSON object:

- `multipart` and `tus`: the speeds in MB/s, and for tus also the speeds of its two parts,
  `tus_send` and `tus_use` (hashing and checking);
- `hashing` and `copying`: the speeds of SHA-256 and of a copy of the file;
- `memory_mib`: by how much the peak memory of the process rose.

With `--production` the API uses PostgreSQL and an S3 server instead of SQLite and a folder.
"""

import argparse
import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.house import house, wait_until
from benchmarks.timing import print_result
from jobstore.database import make_engine, migrate
from jobstore.settings import Settings
from launcher.ports import free_port

MIB = 1 << 20
# The API accepts data sets of up to this many bytes.
_LIMIT = 8 << 30
# The images of the data set are 32x32 with 3 channels, and are written this many at a time.
_SIDE, _CHANNELS, _AT_ONCE = 32, 3, 4096
# By this much the peak memory of the process may rise.
_MEMORY_MIB = 50


def write_dataset(path: Path, mib: int) -> None:
    """Write an uncompressed `.npz` of random images of about `mib` mebibytes, piece by piece."""
    shape, generator = (_SIDE, _SIDE, _CHANNELS), np.random.default_rng(0)
    pixels = math.prod(shape)
    count = mib * MIB // pixels
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("x_train.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(member, header)
            for start in range(0, count, _AT_ONCE):
                member.write(generator.bytes(min(_AT_ONCE, count - start) * pixels))
        with archive.open("y_train.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros(count, np.uint8))


def pieces(path: Path, size: int = MIB) -> Iterator[bytes]:
    """Yield the content of a file, a piece at a time."""
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def hash_file(path: Path) -> None:
    """Compute the SHA-256 hash of a file."""
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def copy_file(path: Path) -> None:
    """Copy a file, on the disk on which the store is."""
    copy = path.with_suffix(".copy")
    with path.open("rb") as source, copy.open("wb") as target:
        shutil.copyfileobj(source, target, MIB)
    copy.unlink()


def send_multipart(http: httpx.Client, path: Path) -> None:
    """Send a file in one `POST /datasets`."""

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        yield from pieces(path)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = http.post("/datasets", content=body(), headers=headers)
    if answer.status_code != 201:
        raise RuntimeError(answer.text)


def send_tus(http: httpx.Client, path: Path, chunk: int) -> tuple[float, float]:
    """Send a file by tus; returns the times of sending, and of hashing, checking and storing."""
    began = time.perf_counter()
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    size = path.stat().st_size
    url = http.post("/uploads", headers=tus | {"Upload-Length": str(size)}).headers["Location"]
    offset = 0
    for piece in pieces(path, chunk):
        headers = tus | {"Upload-Offset": str(offset)}
        sent = http.patch(url, content=piece, headers=headers).raise_for_status()
        offset = int(sent.headers["Upload-Offset"])
    middle = time.perf_counter()
    answer = http.post("/datasets", json={"upload_id": url.rpartition("/")[2]})
    if answer.status_code != 201:
        raise RuntimeError(answer.text)
    return middle - began, time.perf_counter() - middle


def peak_memory(pid: int) -> int:
    """The peak memory of a process, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def embedded(folder: Path) -> Iterator[tuple[str, int]]:
    """Run an API process on SQLite and a folder; yields its URL and process id."""
    settings = Settings(home=folder / "home")
    engine = make_engine(settings)
    migrate(engine)
    engine.dispose()
    port = free_port("127.0.0.1")
    environment = {
        "ATMC_HOME": str(settings.home),
        "ATMC_PORT": str(port),
        "ATMC_MAX_DATASET_BYTES": str(_LIMIT),
    }
    log = (folder / "api.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "api"], env=os.environ | environment, stderr=log
    )
    try:
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def production() -> Iterator[tuple[str, int]]:
    """Run an API process on PostgreSQL and S3; yields its URL and process id."""
    with house(0, settings={"max_dataset_bytes": _LIMIT}) as made:
        process = made.parts["api"].process
        assert process is not None
        yield made.url, process.pid


def measure(url: str, pid: int, path: Path, chunk: int) -> dict[str, float]:
    """Measure everything once, one after the other."""
    size = path.stat().st_size / 1e6

    def speed(run: Callable[[Path], object]) -> float:
        began = time.perf_counter()
        run(path)
        return size / (time.perf_counter() - began)

    with httpx.Client(base_url=url, timeout=600) as http:
        wait_until(lambda: _is_up(http), 60, "the API")
        hash_file(path)  # reads the file from the disk into memory
        http.post("/datasets", files={"file": b""})
        before = peak_memory(pid)
        hashing, copying = speed(hash_file), speed(copy_file)
        multipart = speed(lambda path: send_multipart(http, path))
        sending, using = send_tus(http, path, chunk)
        return {
            "megabytes": size,
            "multipart": multipart,
            "tus": size / (sending + using),
            "tus_send": size / sending,
            "tus_use": size / using,
            "hashing": hashing,
            "copying": copying,
            "memory_mib": (peak_memory(pid) - before) / MIB,
        }


def _is_up(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").is_success
    except httpx.TransportError:
        return False


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if the memory rose too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upload", description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--chunk-mib", type=int, default=64, help="of a request by tus")
    parser.add_argument("--production", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atmc-upload-") as name:
        folder = Path(name)
        write_dataset(folder / "dataset.npz", options.mib)
        with production() if options.production else embedded(folder) as (url, pid):
            figures = measure(url, pid, folder / "dataset.npz", options.chunk_mib * MIB)
    print_result(figures)
    return int(figures["memory_mib"] > _MEMORY_MIB)


if __name__ == "__main__":
    sys.exit(main())
