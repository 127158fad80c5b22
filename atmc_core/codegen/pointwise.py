"""Operations on each entry by itself, as C."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

aten = torch.ops.aten

_LARGEST = torch.finfo(torch.float32).max

#: An operand as text: the name of a variable, or a number.
Text = str


def literal(number: float) -> Text:
    """A number as C writes a float; an infinity or no number by its macro."""
    number = float(number)
    if math.isnan(number):
        return "NAN"
    # Beyond the largest float32 lies infinity, as for PyTorch.
    text = "INFINITY" if abs(number) > _LARGEST else f"{abs(number):.9g}"
    if text[0] != "I":
        text += "f" if "." in text or "e" in text else ".0f"
    return text if math.copysign(1, number) > 0 else f"(-{text})"


def _infix(sign: str) -> Callable[[Text, Text], Text]:
    return lambda a, b: f"{a} {sign} {b}"


def _compared(sign: str) -> Callable[[Text, Text], Text]:
    return lambda a, b: f"{a} {sign} {b} ? 1.0f : 0.0f"


def _called(function: str) -> Callable[..., Text]:
    return lambda *operands: f"{function}({', '.join(operands)})"


def _plus(a: Text, b: Text, alpha: Text = "1.0f") -> Text:
    return f"{a} + {b}" if alpha == "1.0f" else f"{a} + {alpha} * {b}"


def _minus(a: Text, b: Text, alpha: Text = "1.0f") -> Text:
    return f"{a} - {b}" if alpha == "1.0f" else f"{a} - {alpha} * {b}"


def _power(a: Text, b: Text) -> Text:
    short = {"2.0f": f"{a} * {a}", "0.5f": f"sqrtf({a})", "1.0f": a, "3.0f": f"{a} * {a} * {a}"}
    return short.get(b, f"powf({a}, {b})")


def _clamped(x: Text, low: Text | None = None, high: Text | None = None) -> Text:
    if low is not None and high is not None:
        return f"{x} < {low} ? {low} : ({x} > {high} ? {high} : {x})"
    if low is not None:
        return f"{x} < {low} ? {low} : {x}"
    return x if high is None else f"{x} > {high} ? {high} : {x}"


#: C expressions of operations, given those of their operands.
POINTWISE: Mapping[Any, Callable[..., Text]] = {
    aten.relu.default: lambda x: f"{x} < 0.0f ? 0.0f : {x}",
    aten.add.Tensor: _plus,
    aten.add.Scalar: _plus,
    aten.sub.Tensor: _minus,
    aten.sub.Scalar: _minus,
    aten.rsub.Scalar: lambda a, b, alpha="1.0f": _minus(b, a, alpha),
    aten.mul.Tensor: _infix("*"),
    aten.mul.Scalar: _infix("*"),
    aten.div.Tensor: _infix("/"),
    aten.div.Scalar: _infix("/"),
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _called("powf"),
    aten.pow.Scalar: _called("powf"),
    aten.maximum.default: lambda a, b: f"{a} < {b} ? {b} : {a}",
    aten.minimum.default: lambda a, b: f"{a} > {b} ? {b} : {a}",
    aten.clamp.default: _clamped,
    aten.clamp_min.default: _clamped,
    aten.clamp_max.default: lambda x, high: _clamped(x, None, high),
    aten.hardtanh.default: lambda x, low="-1.0f", high="1.0f": _clamped(x, low, high),
    aten.neg.default: lambda x: f"-{x}",
    aten.abs.default: _called("fabsf"),
    aten.exp.default: _called("expf"),
    aten.expm1.default: _called("expm1f"),
    aten.log.default: _called("logf"),
    aten.log1p.default: _called("log1pf"),
    aten.sqrt.default: _called("sqrtf"),
    aten.rsqrt.default: lambda x: f"1.0f / sqrtf({x})",
    aten.reciprocal.default: lambda x: f"1.0f / {x}",
    aten.erf.default: _called("erff"),
    aten.tanh.default: _called("tanhf"),
    aten.sigmoid.default: lambda x: f"1.0f / (1.0f + expf(-{x}))",
    aten.gt.Scalar: _compared(">"),
    aten.gt.Tensor: _compared(">"),
    aten.ge.Scalar: _compared(">="),
    aten.ge.Tensor: _compared(">="),
    aten.lt.Scalar: _compared("<"),
    aten.lt.Tensor: _compared("<"),
    aten.le.Scalar: _compared("<="),
    aten.le.Tensor: _compared("<="),
    aten.eq.Scalar: _compared("=="),
    aten.eq.Tensor: _compared("=="),
    aten.ne.Scalar: _compared("!="),
    aten.ne.Tensor: _compared("!="),
    aten.where.self: lambda chosen, a, b: f"{chosen} != 0.0f ? {a} : {b}",
}
