"""The figures that a finished job is judged by: the one place that names them for users.

The method makes them, the worker hands them over as one document, and the store keeps that document
without knowing what is in it.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from jobstore.tables import Job


def _share(of: str) -> float | None:
    share: float | None = Field(None, description=f"Share of the evaluated images {of}.")
    return share


def _latency(of: str) -> float | None:
    seconds: float | None = Field(
        None, description=f"Median seconds of one image, on one thread of the worker, for {of}."
    )
    return seconds


def _multiply_adds(of: str) -> int | None:
    count: int | None = Field(None, description=f"Multiply-adds of one image for {of}.")
    return count


class Interval(BaseModel):
    """A share of the evaluated images with its 95 % interval."""

    accuracy: float
    low: float
    high: float


class Headline(BaseModel):
    """What a job has achieved; figures that its method does not make are null.

    `before` is the uploaded network, `dense` the one that the job made robust first, where it did,
    and `after` the compressed one. A worker of a newer version may add figures, which are shown as
    they are.
    """

    model_config = ConfigDict(extra="allow")

    clean_accuracy_before: float | None = _share("that are classified right")
    clean_accuracy_dense: float | None = _share("that are classified right")
    clean_accuracy_after: float | None = _share("that are classified right")
    fgsm_accuracy_before: float | None = _share("that stay right under FGSM")
    fgsm_accuracy_dense: float | None = _share("that stay right under FGSM")
    fgsm_accuracy_after: float | None = _share("that stay right under FGSM")
    pgd_accuracy_before: float | None = _share("that stay right under PGD")
    pgd_accuracy_dense: float | None = _share("that stay right under PGD")
    pgd_accuracy_after: float | None = _share("that stay right under PGD")
    robust_accuracy_before: float | None = _share("that stay right under every attack")
    robust_accuracy_dense: float | None = _share("that stay right under every attack")
    robust_accuracy_after: float | None = _share("that stay right under every attack")
    proven_accuracy_before: float | None = _share(
        "of which no point within the radius is misclassified, as bounds prove"
    )
    proven_accuracy_dense: float | None = _share(
        "of which no point within the radius is misclassified, as bounds prove"
    )
    proven_accuracy_after: float | None = _share(
        "of which no point within the radius is misclassified, as bounds prove"
    )
    intervals_after: dict[str, Interval] | None = Field(
        None,
        description="Of the compressed network: `clean`, `robust` (right under every attack) and "
        "each attack by its name, with the ends of their 95 % intervals.",
    )
    k: int | None = Field(None, description="The most non-zeros that the network may have.")
    nonzeros: int | None = Field(None, description="Non-zeros of the compressed weights.")
    nonzeros_u: int | None = Field(None, description="Non-zeros in the factor U.")
    nonzeros_v: int | None = Field(None, description="Non-zeros in the factor V.")
    nonzeros_c: int | None = Field(None, description="Non-zeros in the correction C.")
    bits: int | None = Field(None, description="Bits a non-zero.")
    max_distinct_values: int | None = Field(
        None, description="The most different values that a tensor has."
    )
    dense_bytes: int | None = Field(None, description="Bytes of the dense float32 state dict.")
    file_bytes: int | None = Field(None, description="Bytes of the compressed file.")
    file_ratio: float | None = Field(None, description="`file_bytes` over `dense_bytes`.")
    nominal_ratio: float | None = Field(
        None, description="Bits of the non-zeros over bits of the dense weights."
    )
    latency_before_s: float | None = _latency("the uploaded network in onnxruntime")
    latency_after_s: float | None = _latency("`model.onnx` in onnxruntime")
    latency_c_s: float | None = _latency("`model.c`")
    multiply_adds_before: int | None = _multiply_adds("the uploaded network")
    multiply_adds_after: int | None = _multiply_adds("the compressed network, zeros included")
    multiply_adds_nonzero: int | None = _multiply_adds(
        "the compressed network with weights that are not zero"
    )
    seconds: float | None = Field(None, description="Seconds of computing.")
    accepted: bool | None = Field(
        None, description="Whether all thresholds of `accept` are met; null if it names none."
    )

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Show the figures of the job's row; None before it has succeeded."""
        return None if job.headline is None else cls.model_validate(job.headline)
