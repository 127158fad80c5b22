"""What kinds of ONNX files come in, and how: the tables of docs/formats.md, row by row."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from atmc_core.errors import InvalidInput
from atmc_core.networks.upload import Loaded, ModelInput, open_upload

RNG = np.random.default_rng(0)
IMAGES, CLASSES = (3, 8, 8), 5
FLOAT = TensorProto.FLOAT
WEIGHTS = {
    "w": RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
    "u": RNG.normal(0, 0.3, (CLASSES, 4)).astype(np.float32),
}


def _node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


CONV = _node("Conv", "x w", "a", pads=[1] * 4)
BODY = [
    CONV,
    _node("Relu", "a", "b"),
    _node("GlobalAveragePool", "b", "c"),
    _node("Flatten", "c", "d"),
]
TO_NCHW = _node("Transpose", "x", "t", perm=[0, 3, 1, 2])


def _gemm(output: str = "y") -> NodeProto:
    return _node("Gemm", "d u", output, transB=1)


def _model(
    nodes: list[NodeProto],
    images: tuple[Any, ...] = ("n", *IMAGES),
    opset: int = 17,
    kind: int = FLOAT,
    outputs: tuple[str, ...] = ("y",),
    **constants: Any,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, images)],
        [helper.make_tensor_value_info(name, FLOAT, ["n", None]) for name in outputs],
        [
            value
            if isinstance(value, TensorProto)
            else numpy_helper.from_array(np.asarray(value), name)
            for name, value in (WEIGHTS | constants).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _behind(first: NodeProto, *rest: NodeProto, **options: Any) -> ModelProto:
    """The network with its convolution behind other nodes, which end in ``t``."""
    conv = _node("Conv", "t w", "a", pads=[1] * 4)
    return _model([first, *rest, conv, *BODY[1:], _gemm()], **options)


def _ends(*nodes: NodeProto, **options: Any) -> ModelProto:
    """The network with nodes from its logits ``e`` to ``y``."""
    return _model([*BODY, _gemm("e"), *nodes], **options)


def _with_input(model: ModelProto, name: str) -> ModelProto:
    model.graph.input.append(helper.make_tensor_value_info(name, FLOAT, []))
    return model


def _bfloat16(name: str) -> TensorProto:
    """A weight in bfloat16, the upper half of float32."""
    upper = (WEIGHTS[name].view(np.uint32) >> 16).astype(np.uint16)
    return helper.make_tensor(
        f"{name}16", TensorProto.BFLOAT16, WEIGHTS[name].shape, upper.tobytes(), raw=True
    )


def _external() -> ModelProto:
    model = _model([*BODY, _gemm()])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def _function() -> ModelProto:
    model = _model([*BODY, _node("Ours", "d", "y", domain="ours")])
    imports = [helper.make_opsetid("", 17)]
    body = [_node("Relu", "p", "q")]
    model.functions.append(helper.make_function("ours", "Ours", ["p"], ["q"], body, imports))
    return model


def _branch() -> NodeProto:
    def body(name: str, op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, FLOAT, None)
        return helper.make_graph([_node(op, "d", name)], name, [], [value])

    return _node("If", "flag", "y", name="w", then_branch=body("s", "Relu"),
                 else_branch=body("t", "Neg"))  # fmt: skip


def _cntk() -> ModelProto:
    """As in ONNX's own zoo: one image, weights that are inputs, too, and reshaped constants."""
    model = _model(
        [
            _node("Reshape", "p193 s1", "w2"),
            _node("Conv", "x w", "c", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
            _node("Add", "c p6", "q"),
            _node("Relu", "q", "r"),
            _node("MaxPool", "r", "m", kernel_shape=[2, 2], strides=[2, 2], auto_pad="NOTSET"),
            _node("Dropout", "m", "o mask", ratio=0.5),
            _node("Reshape", "o s2", "g"),
            _node("MatMul", "g w2", "h"),
            _node("Add", "h p194", "y"),
        ],
        images=(1, *IMAGES), opset=7,
        p193=RNG.normal(0, 0.3, (4, 2, 2, CLASSES)).astype(np.float32), s1=np.array([16, CLASSES]),
        p6=np.ones((4, 1, 1), np.float32), s2=np.array([1, 16]),
        p194=np.ones((1, CLASSES), np.float32),
    )  # fmt: skip
    model.ir_version = 3
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(value)
    return model


def _without_shape() -> ModelProto:
    model = _model([*BODY, _gemm()])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    return model


SOFTMAX = _node("Softmax", "e", "f")
NHWC = ("n", 8, 8, 3)

#: What comes in: row of the table, files of that kind, codes of the notes.
TAKEN: dict[str, tuple[list[ModelProto], list[str]]] = {
    "opsets 9 to 23": ([_model([*BODY, _gemm()], opset=n) for n in (11, 17, 23)], []),
    "opsets 7 and 8": (
        [_model([*BODY, _node("Gemm", "d u v", "y", transB=1)], opset=n, v=np.ones(5, np.float32))
         for n in (7, 8)] + [_cntk()],
        [],
    ),
    "nodes in any order": ([_model([*BODY, _gemm()][::-1])], []),
    "nodes, weights and inputs that the classes do not need": (
        [
            _model([*BODY, _gemm(), _node("ArgMax", "y", "z", axis=1)]),
            _model([*BODY, _gemm(), _node("Softmax", "y", "z")]),
            _model([_node("Strange", "x", "z", domain="strange"), *BODY, _gemm()]),
            _model([_node("If", "x", "z"), *BODY, _gemm()]),
            _model([*BODY, _gemm()], unused=np.array([1, 2], np.uint8), text=np.array(["a"])),
            _with_input(_model([*BODY, _gemm()]), "keep_prob"),
        ],
        [],
    ),
    "several outputs": (
        [
            _model([*BODY, _gemm()], outputs=("d", "y")),
            _model([*BODY, _gemm(), _node("Softmax", "y", "p")], outputs=("y", "p")),
            _model([*BODY, _gemm(), _node("ArgMax", "d", "z")], outputs=("d", "y")),
        ],
        ["output_chosen"],
    ),
    "images `[N, H, W, C]`": (
        [
            _behind(TO_NCHW, images=NHWC),
            _behind(TO_NCHW, images=("n", "h", "w", 3)),
            _behind(TO_NCHW, images=("n", "h", "w", "c")),
            _behind(_node("Cast", "x", "i", to=FLOAT),
                    _node("Transpose", "i", "t", perm=[0, 3, 1, 2]), images=NHWC),
            _behind(_node("Sub", "x mean", "i"),
                    _node("Transpose", "i", "t", perm=[0, 3, 1, 2]),
                    images=NHWC, mean=np.array([0.1, 0.2, 0.3], np.float32)),
            _model([_node("Flatten", "x", "d"), _node("Gemm", "d v", "y")], images=NHWC,
                   v=RNG.normal(0, 0.1, (192, CLASSES)).astype(np.float32)),
        ],
        ["channels_last_images"],
    ),
    "images of open size": (
        [_model([*BODY, _gemm()], images=(None, None, "h", "w")),
         _model([*BODY, _gemm()], images=(-1, 3, -1, -1)),
         _without_shape()],
        [],
    ),
    "a fixed batch": ([_model([*BODY, _gemm()], images=(n, *IMAGES)) for n in (1, 3, 16)], []),
    "a softmax or its logarithm at the end": (
        [
            _ends(_node("Softmax", "e", "y")),
            _ends(_node("LogSoftmax", "e", "y", axis=1)),
            _ends(SOFTMAX, _node("Identity", "f", "y")),
            _ends(SOFTMAX, _node("Cast", "f", "y", to=FLOAT)),
            _ends(SOFTMAX, _node("Reshape", "f s", "y"), s=np.array([-1, CLASSES])),
            _ends(SOFTMAX, _node("Flatten", "f", "y")),
            _ends(SOFTMAX, _node("Dropout", "f", "y")),
            _ends(SOFTMAX, _node("Log", "f", "y")),
            _ends(_node("Identity", "e", "g"), _node("Softmax", "g", "f"),
                  _node("Dropout", "f", "h"), _node("Log", "h", "y")),
            _model(
                [*BODY[:3], _node("Conv", "c v", "e"), _node("Softmax", "e", "f", axis=1),
                 _node("Squeeze", "f s", "y")],
                v=WEIGHTS["u"].reshape(CLASSES, 4, 1, 1), s=np.array([2, 3]),
            ),
            _model(
                [*BODY[:3], _node("Conv", "c v", "e"), _node("Softmax", "e", "f"),
                 _node("Flatten", "f", "y")],
                v=WEIGHTS["u"].reshape(CLASSES, 4, 1, 1), opset=11,
            ),
        ],
        ["softmax_dropped"],
    ),
    "an output `[N, classes, 1, 1]`": (
        [_model([*BODY[:3], _node("Conv", "c v", "y")], v=WEIGHTS["u"].reshape(CLASSES, 4, 1, 1))],
        [],
    ),
    "images and weights in float16": (
        [
            _model([*BODY, _gemm("e"), _node("Cast", "e", "y", to=FLOAT)],
                   kind=TensorProto.FLOAT16, w=WEIGHTS["w"].astype(np.float16),
                   u=WEIGHTS["u"].astype(np.float16)),
            _model([_node("Cast", "x", "i", to=TensorProto.FLOAT16), _node("Conv", "i w", "a"),
                    *BODY[1:], _gemm("e"), _node("Cast", "e", "y", to=FLOAT)],
                   w=WEIGHTS["w"].astype(np.float16), u=WEIGHTS["u"].astype(np.float16)),
        ],
        ["half_precision_widened"],
    ),
    "images in double precision, made float32 at once": (
        [_behind(_node("Cast", "x", "t", to=FLOAT), kind=TensorProto.DOUBLE)],
        [],
    ),
    "weights in bfloat16, or as small integers, made float32 by the graph": (
        [
            _model([_node("Cast", "w16", "w1", to=FLOAT), _node("Conv", "x w1", "a"), *BODY[1:],
                    _gemm()], w16=_bfloat16("w")),
            _model([_node("Cast", "w8", "w1", to=FLOAT), _node("Conv", "x w1", "a"), *BODY[1:],
                    _gemm()], w8=RNG.integers(-9, 9, (4, 3, 3, 3)).astype(np.int8)),
        ],
        [],
    ),
}  # fmt: skip

#: What is refused: row of the table, files of that kind, the code, and words of the message.
REFUSED: dict[str, tuple[list[ModelProto], str, str]] = {
    "quantised files": (
        [
            _model([_node("QuantizeLinear", "x s z", "q"), _node("DequantizeLinear", "q s z", "t"),
                    _node("Conv", "t w", "a"), *BODY[1:], _gemm()],
                   s=np.float32(0.01), z=np.int8(0)),
            _model([*BODY, _node("DynamicQuantizeLinear", "d", "q s z"),
                    _node("MatMulInteger", "q i", "y")], i=np.ones((4, CLASSES), np.int8)),
            _behind(_node("QLinearAdd", "x x x x x x x x", "t", domain="com.microsoft")),
        ],
        "unsupported_operator",
        "send the float32 model",
    ),
    "weights in another file": ([_external()], "external_data", "external_data=False"),
    "images of another type": (
        [
            _model([*BODY, _gemm()], kind=TensorProto.DOUBLE),
            _model([*BODY, _gemm()], kind=TensorProto.BFLOAT16),
            _behind(_node("Cast", "x", "t", to=FLOAT), kind=TensorProto.UINT8),
            _behind(_node("Cast", "x", "t", to=FLOAT), kind=TensorProto.INT64),
        ],
        "malformed_model",
        "export it (in|with) float32",
    ),
    "opsets before 7 and behind 23": (
        [_model([*BODY, _gemm()], opset=n) for n in (6, 24)],
        "malformed_model",
        "convert_version",
    ),
    "two inputs that are both used": (
        [_with_input(_ends(_node("Mul", "e gain", "y")), "gain")],
        "malformed_model",
        "'x', 'gain' are all used",
    ),
    "outputs that can all be the classes' scores": (
        [_model([*BODY, _gemm(), _node("Gemm", "d u", "z", transB=1, alpha=2.0)],
                outputs=("y", "z"))],
        "malformed_model",
        "'y', 'z' can all be the classes' scores: keep one",
    ),
    "layers in bfloat16 or double precision": (
        [_model([_node("Cast", "x", "i", to=kind), _node("Cast", "w", "w1", to=kind),
                 _node("Conv", "i w1", "a1"), _node("Cast", "a1", "a", to=FLOAT), *BODY[1:],
                 _gemm()]) for kind in (TensorProto.BFLOAT16, TensorProto.DOUBLE)],
        "malformed_model",
        "export the network in float32",
    ),
    "images without an axis for the batch or the channels, or in one row": (
        [_model([*BODY, _gemm()], images=shape) for shape in ((3, 8, 8), ("n", 192))],
        "malformed_model",
        "dimensions; images are",
    ),
    "a dropout in training mode": (
        [_model([*BODY, _node("Dropout", "d r t", "h"), _node("Gemm", "h u", "y", transB=1)],
                r=np.float32(0.5), t=np.array(True))],
        "unsupported_operator",
        r"Dropout node number 4: .* model\.eval\(\)",
    ),
    "control flow": (
        [_model([*BODY, _branch()], flag=np.array(True))],
        "unsupported_operator",
        "If node 'w': control flow .* tracing",
    ),
    "sequences": (
        [_model([*BODY, _node("SequenceConstruct", "d d", "s"), _node("ConcatFromSequence", "s",
                 "y", axis=1)])],
        "unsupported_operator",
        "SequenceConstruct node number 4: lists of tensors",
    ),
    "operators of other domains": (
        [_model([_node("FusedConv", "x w", "a", domain="com.microsoft"), *BODY[1:], _gemm()])],
        "unsupported_operator",
        "FusedConv node number 0: onnxruntime's optimizer made it",
    ),
    "functions of the file's own": (
        [_function()], "unsupported_operator", "inline_local_functions",
    ),
    "operators that ONNX does not have": (
        [_ends(_node("Gelu", "e", "y")), _ends(_node("Frobnicate", "e", "y"))],
        "unsupported_operator",
        "opset 17 of ONNX has no such operator",
    ),
    "nodes in a circle": (
        [_model([_node("Add", "x q", "p"), _node("Relu", "p", "q"),
                 _node("Conv", "q w", "a"), *BODY[1:], _gemm()])],
        "malformed_model",
        "cycle: Relu node number 1, Add node number 0$|cycle: Add node number 0, Relu node",
    ),
    "nodes that use what is not there": (
        [_behind(_node("Add", "x missing", "t"))],
        "malformed_model",
        "uses 'missing', .* a missing initializer",
    ),
    "a softmax along something else": (
        [_ends(_node("Reshape", "e s", "f"), _node("Softmax", "f", "g", axis=-1),
               _node("Flatten", "g", "y"), s=np.array([-1, CLASSES, 1]))],
        "unsupported_operator",
        "along the classes",
    ),
}  # fmt: skip


def _load(model: ModelProto, path: Path) -> Loaded:
    path.write_bytes(model.SerializeToString())
    return open_upload(ModelInput(path, "onnx")).load(IMAGES)


def _parametrised(table: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(row, place, id=f"{row} {place}")
        for row, (files, *_) in table.items()
        for place in range(len(files))
    ]


@pytest.mark.parametrize(("row", "place"), _parametrised(TAKEN))
def test_files_of_this_kind_come_in(row: str, place: int, tmp_path: Path) -> None:
    """What comes in does what onnxruntime does; ``load`` compares them."""
    files, codes = TAKEN[row]
    loaded = _load(files[place], tmp_path / "net.onnx")
    assert loaded.blueprint.input_shape == IMAGES
    assert loaded.blueprint.num_classes == CLASSES
    assert [code for code, _ in loaded.notes] == codes
    with torch.no_grad():
        assert loaded.network.eval()(torch.rand(2, *IMAGES)).std() > 0


@pytest.mark.parametrize(("row", "place"), _parametrised(REFUSED))
def test_files_of_this_kind_are_refused(row: str, place: int, tmp_path: Path) -> None:
    files, code, words = REFUSED[row]
    with pytest.raises(InvalidInput) as refused:
        _load(files[place], tmp_path / "net.onnx")
    assert refused.value.code == code
    assert re.search(words, refused.value.message), refused.value.message
    assert not re.search(r"0x[0-9a-f]{6}|<lambda>|object at", refused.value.message)


def test_the_docs_have_these_rows() -> None:
    text = Path("docs/formats.md").read_text()
    section = text[text.index("### ONNX files") : text.index("### Operators")]
    rows = re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)
    assert [row for row in rows if row not in ("a file with", "---")] == [*TAKEN, *REFUSED]


BAD_NODES: dict[str, tuple[Callable[[], NodeProto], str]] = {
    "too few inputs": (lambda: _node("Add", "x", "t"), "has 1 inputs; 2 are expected"),
    "too many": (lambda: _node("Relu", "x x", "t"), "has 2 inputs; 1 are expected"),
    "an empty one": (
        lambda: helper.make_node("Add", ["x", ""], ["t"]), "has no input 1",
    ),
    "no attribute": (lambda: _node("Cast", "x", "t"), "has no attribute 'to'"),
    "another type": (lambda: _node("Cast", "x", "t", to=1.5), "'to' is float; int is expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_NODES)
def test_a_node_is_held_against_its_schema(name: str, tmp_path: Path) -> None:
    node, words = BAD_NODES[name]
    with pytest.raises(InvalidInput, match=words) as refused:
        _load(_behind(node()), tmp_path / "net.onnx")
    assert refused.value.code == "malformed_model"


def test_a_transpose_to_channels_first_leaves_no_operation(tmp_path: Path) -> None:
    plain = _load(_model([*BODY, _gemm()]), tmp_path / "a.onnx").blueprint
    turned = _load(_behind(TO_NCHW, images=NHWC), tmp_path / "b.onnx").blueprint
    assert plain.graph is not None
    assert turned.graph is not None
    assert turned.graph.nodes == plain.graph.nodes


def test_open_sizes_are_named_where_they_do_not_fit(tmp_path: Path) -> None:
    flat = [_node("Flatten", "x", "d"), _node("Gemm", "d v", "y")]
    model = _model(flat, images=("n", 3, "tall", "wide"), v=np.ones((48, CLASSES), np.float32))
    with pytest.raises(InvalidInput, match=r"\[3, 8, 8\].*height 'tall', width 'wide'"):
        _load(model, tmp_path / "net.onnx")
