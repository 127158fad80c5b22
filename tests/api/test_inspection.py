"""Files are looked into outside of the process that serves, in limited time and memory."""

import asyncio
import io
import os
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from api.inspection import archives, headers, process, read_dataset_header, read_model_header
from api.inspection.headers import ArrayHeader
from api.problems import Problem
from tests.api import files
from tests.api.looks import (
    a_fault,
    for_a_while,
    for_ever,
    in_much_memory,
    its_end,
    its_environment,
    its_process,
    others_files,
    pieces,
    sockets,
    something_else,
)


@pytest.fixture(autouse=True, scope="module")
def looks_are_loaded() -> Iterator[None]:
    """Has the processes load what is called here before they are shut in, as they load the API's.

    Afterwards they cannot list the checkout, which Python does once something in it has changed.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_idle", [])
        patch.setattr(process, "_RUN", f"import tests.api.looks; {process._RUN}")
        yield
        for child in process._idle:
            child.end()


def look(by: Callable[[BinaryIO], Any], content: bytes = b"0123456789") -> Any:
    return asyncio.run(
        process.inspect("default", lambda: io.BytesIO(content), by, "malformed_model")
    )


def test_a_file_is_looked_into_in_another_process_that_has_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ATMC_ADMIN_KEY", "hush")
    first, second = look(its_process), look(its_process)
    assert first == second != os.getpid()
    assert not [name for name in look(its_environment) if name.startswith(("ATMC_", "AWS_"))]
    assert look(pieces) == [b"56789", b"3456", b""]


def test_nothing_is_loaded_once_a_process_is_shut_in() -> None:
    assert look(its_process) > 0
    os.utime(Path(__file__).parents[2])  # Now Python would have to list the checkout.
    for content in (files.torch_file(), files.safetensors_file()):
        assert look(read_model_header, content) == read_model_header(io.BytesIO(content))
    by = partial(read_dataset_header, max_inflated_bytes=1 << 20)
    assert look(by, files.npz_file()) == by(io.BytesIO(files.npz_file()))


def test_one_that_was_killed_while_it_waited_costs_no_upload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take, killed = process._take, process._Child()
    killed._process.kill()
    killed._process.wait()
    waiting = [killed]
    monkeypatch.setattr(process, "_take", lambda: waiting.pop() if waiting else take())
    assert look(its_process) > 0
    assert not waiting


def test_it_reads_nobody_s_files_and_reaches_nobody(tmp_path: Path) -> None:
    held = process.shut_in("best")
    for name in ("atmc.db", "secrets.key"):
        (tmp_path / name).write_text("of the service")
    paths = [str(tmp_path / "atmc.db"), str(tmp_path / "secrets.key"), "/etc/shadow"]
    if "files" not in held.missing:
        assert set(look(partial(others_files, paths=paths))) == {"EACCES"}
    if "calls" not in held.missing:
        *others, signal = look(sockets)
        assert set(others) == {"EPERM"}
        assert signal == "EPERM" or "signals" not in str(held)
    if held.missing:
        pytest.skip(f"this kernel does not shut everything: {held}")


@pytest.mark.parametrize("bad", [for_ever, in_much_memory, its_end, something_else])
def test_one_that_takes_too_much_is_refused_and_the_next_looked_into(
    monkeypatch: pytest.MonkeyPatch, bad: Callable[[BinaryIO], Any]
) -> None:
    assert look(its_process) > 0
    monkeypatch.setattr(process, "LOOK_S", 1.0 if bad is for_ever else 60.0)
    with pytest.raises(Problem) as refused:
        look(bad)
    assert refused.value.code == "malformed_model"
    monkeypatch.setattr(process, "LOOK_S", 60.0)
    assert look(pieces)[0] == b"56789"


def test_a_tenant_s_files_are_looked_into_one_after_the_other(tmp_path: Path) -> None:
    """So those of others have their turn beside them."""

    async def three() -> list[float]:
        began = time.monotonic()
        ended: list[float] = []

        async def one(tenant: str, seconds: float) -> None:
            by = partial(for_a_while, seconds=seconds)
            await process.inspect(tenant, lambda: io.BytesIO(b""), by, "malformed_model")
            ended.append(time.monotonic() - began)

        await asyncio.gather(one("red", 0.5), one("red", 0.5), one("red", 0.5), one("blue", 0.0))
        return ended

    look(its_process)
    first, *_, last = asyncio.run(three())
    assert first < 1.4
    assert last >= 1.5


def test_a_fault_of_ours_is_no_fault_of_the_file() -> None:
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        look(a_fault)


def test_what_is_found_and_refused_is_as_if_looked_at_here() -> None:
    found = look(read_model_header, files.torch_file())
    assert found == read_model_header(io.BytesIO(files.torch_file()))
    by = partial(read_dataset_header, max_inflated_bytes=1 << 30)
    assert isinstance(look(by, files.npz_file())["x_train"], ArrayHeader)
    with pytest.raises(Problem) as refused:
        look(read_model_header, files.torch_zip(files.malicious_pickle("true")))
    assert refused.value.code == "unsafe_pickle"


def zip_of(count: int) -> bytes:
    """A zip of so many empty files, each with a name of its own."""
    locals_, directory, offset = [], [], 0
    for number in range(count):
        name = b"train/%d/%06d.png" % (number % 10, number)
        local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        entry = struct.pack(
            *("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0),
            offset,
        )
        locals_.append(local)
        directory.append(entry + name)
        offset += len(local)
    entries = b"".join(directory)
    end64 = struct.pack(
        *("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), offset)
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, offset + len(entries), 1)
    most = 0xFFFF if count > 0xFFFF else count
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, most, most, len(entries), offset, 0)
    return b"".join([*locals_, entries, end64, locator, end])


def test_an_archive_of_too_many_members_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 70_000)
    assert read_dataset_header(io.BytesIO(zip_of(70_000)), 1 << 30) == {}
    with pytest.raises(Problem, match="70001 members, 70000 are allowed"):
        read_dataset_header(io.BytesIO(zip_of(70_001)), 1 << 30)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_network_of_too_many_tensors_is_refused(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    count = headers.MAX_TENSORS + 1
    if kind == "safetensors":
        entry = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
        document = ("{" + ",".join(f'"t{n}":{entry}' for n in range(count)) + "}").encode()
        content = struct.pack("<Q", len(document)) + document
    else:
        import torch

        shared = torch.zeros(1)
        content = files.torch_file({f"t{n}": shared for n in range(count)})
    with pytest.raises(Problem, match=f"{count} tensors"):
        read_model_header(io.BytesIO(content))
