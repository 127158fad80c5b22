"""What a model file says of itself, and how one that cannot be used is refused."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from onnx import helper

from api.inspection import ModelHeader, TensorHeader, read_model_header
from api.inspection.pickle_outline import MAX_OPCODES
from api.problems import Problem
from tests.api import files


def read(content: bytes) -> ModelHeader:
    return read_model_header(io.BytesIO(content))


def refused(content: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        read(content)
    return caught.value


def test_a_safetensors_file_tells_names_types_and_shapes() -> None:
    header = read(
        files.safetensors_file({"a": np.zeros((2, 3), "float32"), "b": np.zeros((), "int64")})
    )
    assert header == ModelHeader(
        "safetensors", {"a": TensorHeader("F32", (2, 3)), "b": TensorHeader("I64", ())}
    )


def test_a_torch_file_tells_the_same_as_torch() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).half()
    state = module.state_dict()
    state["transposed"] = torch.zeros(2, 3).T
    state["parameter"] = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    state["view"] = torch.arange(10.0)[4:]
    header = read(files.torch_file(state))
    names = {torch.float16: "F16", torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}
    assert header.format == "torch"
    assert header.tensors == {
        key: TensorHeader(names[tensor.dtype], tuple(tensor.shape)) for key, tensor in state.items()
    }


def test_the_content_decides_what_a_file_is_even_where_it_looks_like_a_pickle() -> None:
    # A header of 640 bytes: the file begins with the two bytes that a pickle begins with.
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x0280)
    content = files.safetensors_raw(header, b"\0")
    assert content.startswith(b"\x80\x02")
    assert read(content).tensors == {"a": TensorHeader("U8", (1,))}


YOUNG_TYPES = {
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.complex64: "C64",
}


@pytest.mark.parametrize("dtype", YOUNG_TYPES, ids=str)
def test_a_type_that_no_network_here_has_is_told_as_what_it_is(dtype: torch.dtype) -> None:
    state = {"a": torch.zeros(2, 3, dtype=dtype), "view": torch.zeros(9, dtype=dtype)[4:]}
    header = read(files.torch_file(state))
    name = YOUNG_TYPES[dtype]
    assert header.tensors == {"a": TensorHeader(name, (2, 3)), "view": TensorHeader(name, (5,))}
    content = files.torch_file(state)
    assert refused(content.replace(b"K\x02K\x03\x86", b"K\x03K\x03\x86")).code == "malformed_model"
    whole = safetensors.torch.save({"a": state["a"]})
    assert read(whole).tensors == {"a": TensorHeader(name, (2, 3))}


@pytest.mark.parametrize("protocol", [0, 1])
def test_an_old_protocol_is_refused_with_the_option_to_leave_out(protocol: int) -> None:
    problem = refused(files.torch_file({"a": torch.zeros(3)}, pickle_protocol=protocol))
    assert problem.code == "malformed_model"
    assert "pickle protocol 0 or 1; leave pickle_protocol out" in problem.detail


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_is_refused_by_name_and_not_run(
    protocol: int, tmp_path: Path
) -> None:
    witness = tmp_path / "it ran"
    content = files.malicious_pickle(f"touch '{witness}'", protocol)
    problem = refused(files.torch_zip(content))
    assert problem.code == "unsafe_pickle"
    assert "posix.system" in problem.detail
    assert "torch.save(model.state_dict()" in problem.detail
    assert not witness.exists()
    # The file is what it is taken for: unpickled, it does run.
    pickle.loads(content)
    assert witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x02(X\x02\x00\x00\x00idios\nsystem\n.",
        b"\x80\x02cos\nsystem\n)\x81.",
        b"\x80\x02\x82\x01.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02ctorch\nload\n.",
        # Behind something that no state dict has.
        b"(dp0\nVa\ncos\nsystem\n.",
        b"\x80\x02cos\nsystem\n",
        b"(S'id'\nios\nsystem\n.",
        b"\x80\x02ccollections\nOrderedDict.__init__.__globals__\n.",
    ],
)
def test_every_way_to_name_code_is_unsafe(content: bytes) -> None:
    assert refused(files.torch_zip(content)).code == "unsafe_pickle"


def test_a_pickled_module_is_refused_with_the_call_that_saves_its_tensors() -> None:
    problem = refused(files.torch_file(torch.nn.Linear(2, 2)))
    assert problem.code == "unsafe_pickle"
    assert "torch.nn.modules.linear.Linear" in problem.detail
    assert "state_dict()" in problem.detail


@pytest.mark.parametrize("legacy", [True, False])
def test_a_bare_pickle_is_refused_with_the_command_that_converts_it(legacy: bool) -> None:
    state = {"a": torch.zeros(2)}
    content = (
        files.torch_file(state, _use_new_zipfile_serialization=False)
        if legacy
        else files.malicious_pickle("true")
    )
    problem = refused(content)
    assert problem.code == "unsafe_pickle"
    assert "python -c" in problem.detail


def test_torchscript_is_refused_with_the_command_that_converts_it() -> None:
    problem = refused(files.torchscript_file())
    assert problem.code == "torchscript_refused"
    assert "torch.jit.load" in problem.detail


def test_a_nested_state_dict_is_found_and_what_is_beside_it_is_measured() -> None:
    made = {"epoch": 3, "model": {"a": torch.zeros(2)}, "optimizer": {"m": torch.ones(3)}}
    header = read(files.torch_file(made))
    (found,) = header.state_dicts
    assert (found.path, found.beside) == (("model",), ("epoch", "optimizer"))
    assert header.tensors == found.tensors == {"a": TensorHeader("F32", (2,))}
    with zipfile.ZipFile(io.BytesIO(files.torch_file(made))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    cut = members | {"archive/data/1": members["archive/data/1"][:-4]}
    assert "should take 12 bytes and has 8" in refused(files.zip_file(cut)).detail


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


GOOD = files.safetensors_file()


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "text": b"not a model at all",
        "truncated in the tensors": GOOD[:-1],
        "truncated in the header": GOOD[:40],
        "lengthened": GOOD + b"\0",
        "a header longer than allowed": (2**25).to_bytes(8, "little") + b"{" + b" " * 100,
        "not JSON": files.safetensors_raw(b"{]"),
        "not UTF-8": files.safetensors_raw(b'{"\xff": 1}'),
        "deeply nested": files.safetensors_raw(b'{"a":' * 100_000),
        "a number too long": files.safetensors_raw(b'{"a":' + b"1" * 10_000 + b"}"),
        "a key twice": files.safetensors_raw(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"\0",
        ),
    }.items(),
    ids=lambda case: case[0],
)
def test_a_file_that_is_no_model_is_malformed(content: tuple[str, bytes]) -> None:
    problem = refused(content[1])
    assert problem.code == "malformed_model"
    assert "safetensors" in problem.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "F99"},
        {"dtype": 3},
        {"shape": [2.0]},
        {"shape": [True]},
        {"shape": [-2]},
        {"shape": [2] * 17},
        {"shape": [3]},
        {"data_offsets": [8, 0]},
        {"data_offsets": [4, 12]},
        {"data_offsets": [0]},
        {"extra": 1},
    ],
)
def test_an_entry_that_cannot_be_a_tensor_is_malformed_and_named(changes: dict[str, Any]) -> None:
    header = json.dumps({"weight": entry(**changes)}).encode()
    problem = refused(files.safetensors_raw(header, bytes(8)))
    assert (problem.code, problem.param) == ("malformed_model", "weight")


def test_tensors_that_overlap_or_leave_a_gap_are_malformed() -> None:
    for begin in (4, 12):
        header = json.dumps({"a": entry(), "b": entry(data_offsets=[begin, begin + 8])}).encode()
        problem = refused(files.safetensors_raw(header, bytes(begin + 8)))
        assert (problem.code, problem.param) == ("malformed_model", "b")


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"


def tensor_pickle(elements: bytes, offset: bytes, shape: bytes, stride: bytes) -> bytes:
    """A state dict of one tensor `a`, in the opcodes that torch.save writes."""
    storage = STORAGE + elements + b"tQ"
    rest = b"\x89ccollections\nOrderedDict\n)RtR"
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride + rest
    return b"\x80\x02}X\x01\x00\x00\x00a" + rebuild + b"s."


def test_the_opcodes_of_this_test_are_those_of_a_state_dict() -> None:
    content = tensor_pickle(b"K\x02", b"K\x00", b"K\x02\x85", b"K\x01\x85")
    header = read(files.torch_zip(content, **{"0": bytes(8)}))
    assert header.tensors == {"a": TensorHeader("F32", (2,))}


@pytest.mark.parametrize(
    ("content", "data"),
    [
        # A view past its storage, an expanded view, a negative one, strides of another rank.
        (tensor_pickle(b"K\x02", b"K\x01", b"K\x02\x85", b"K\x01\x85"), bytes(8)),
        (tensor_pickle(b"K\x02", b"K\x00", b"K\xff\x85", b"K\x00\x85"), bytes(8)),
        (tensor_pickle(b"K\x02", b"K\x00", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), bytes(8)),
        (tensor_pickle(b"K\x02", b"K\x00", b"K\x02\x85", b")"), bytes(8)),
        # Storages that are shorter and longer than the index says.
        (tensor_pickle(b"K\x02", b"K\x00", b"K\x02\x85", b"K\x01\x85"), bytes(7)),
        (tensor_pickle(b"K\x02", b"K\x00", b"K\x02\x85", b"K\x01\x85"), bytes(9)),
    ],
)
def test_a_tensor_that_its_storage_does_not_hold_is_malformed(content: bytes, data: bytes) -> None:
    assert refused(files.torch_zip(content, **{"0": data})).code == "malformed_model"


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "cut short": b"\x80\x02}X\x01\x00",
        "empty stack": b"\x80\x02.",
        "no mark": b"\x80\x02t.",
        "a memo that is not there": b"\x80\x02j\xff\xff\xff\xff.",
        "a long memo index": b"\x80\x02}r\xff\xff\xff\x7f0.",
        "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
        "an array of 8 EB": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        "a list": b"\x80\x02].",
        "a number in it": b"\x80\x02}X\x01\x00\x00\x00aK\x01s.",
        "protocol 4": pickle.dumps({}, protocol=4),
        "a tuple as key": b"\x80\x02}))\x86Ns.",
        "a call of a storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
        "a call of a string": b"\x80\x02X\x01\x00\x00\x00a)R.",
    }.items(),
    ids=lambda case: case[0],
)
def test_an_index_that_torch_does_not_write_is_malformed(content: tuple[str, bytes]) -> None:
    assert refused(files.torch_zip(content[1])).code == "malformed_model"


def test_nested_tuples_cost_no_exponential_time() -> None:
    # Each is a pair of the one before: hashing the last would take 2^200 steps.
    bomb = b"\x80\x02})q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(200)) + b"Ns."
    assert refused(files.torch_zip(bomb)).code == "malformed_model"


def test_an_endless_index_is_given_up() -> None:
    assert refused(files.torch_zip(b"\x80\x02" + b"N" * MAX_OPCODES)).code == "malformed_model"
    assert refused(files.torch_zip(b"\x80\x02" + b"N" * (9 * 2**20))).code == "malformed_model"


def test_an_archive_without_an_index_or_with_two_is_malformed() -> None:
    for names in ([], ["a/data.pkl", "b/data.pkl"], ["a/data.pkl", "a/DATA.PKL"]):
        content = files.zip_file(dict.fromkeys(names, b"\x80\x02}.") | {"a/data/0": b"x"})
        assert refused(content).code == "malformed_model"


def test_an_archive_that_inflates_is_read_no_further_than_its_limit() -> None:
    bomb = files.zip_file({"archive/data.pkl": bytes(2**26)})
    assert len(bomb) < 100_000
    problem = refused(bomb)
    assert problem.code == "malformed_model"
    assert "67108864 bytes" in problem.detail


def test_a_torch_file_that_is_cut_anywhere_is_malformed() -> None:
    content = files.torch_file(OrderedDict(a=torch.zeros(3)))
    for length in range(4, len(content) - 1, 37):
        assert refused(content[:length]).code == "malformed_model"


def test_the_directory_of_an_archive_may_not_claim_to_be_the_file() -> None:
    content = bytearray(files.zip_file({"archive/data.pkl": b"\x80\x02}."}, zipfile.ZIP_STORED))
    end = content.rindex(b"PK\x05\x06")
    padding = bytes(30 * 2**20)
    content[end + 12 : end + 16] = len(padding).to_bytes(4, "little")
    assert refused(bytes(content[:end]) + padding + bytes(content[end:])).code == "malformed_model"


@pytest.mark.parametrize(("version", "domain"), [(6, ""), (24, ""), (0, "ai.onnx"), (-1, "")])
def test_an_opset_that_the_job_would_refuse_is_refused_at_once(version: int, domain: str) -> None:
    problem = refused(_onnx(version, domain))
    assert problem.code == "malformed_model"
    assert "7 to 23 are known" in problem.detail
    assert "convert_version" in problem.detail


@pytest.mark.parametrize(("version", "domain"), [(7, ""), (23, "ai.onnx"), (1, "com.microsoft")])
def test_an_opset_that_the_job_reads_is_not_refused(version: int, domain: str) -> None:
    assert read(_onnx(version, domain)).format == "onnx"


def _onnx(version: int, domain: str) -> bytes:
    graph = helper.make_graph([], "net", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version)])
    content: bytes = model.SerializeToString()
    return content
