"""Checks a new job: the service's fields, and the method's spec as its workers published it."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy.orm import Session

from api.catalogue.lookup import find_spec_reader
from api.jobs.schemas import NewJob
from api.problems import Problem
from api.strict_json import as_model
from atmc_spec import SPECS, InvalidInput, count_nonzeros, read_spec
from jobstore.tables import Document

New = TypeVar("New", bound=NewJob)


def read_new_job(session: Session, body: Document, kind: type[New]) -> tuple[New, Document]:
    """Split a body into the service's fields and the method's spec, both checked.

    Raises `missing_field`, `unknown_field`, `invalid_value` (with a dotted path as `param`),
    `unknown_method`, `no_worker`. The range of `target.k` depends on the network: see `check_k`.
    """
    fields = {name: value for name, value in body.items() if name in kind.model_fields}
    spec = {name: value for name, value in body.items() if name not in kind.model_fields}
    new = as_model(fields, kind)
    check_spec(session, spec, beside=list(kind.model_fields))
    return new, spec


def check_spec(session: Session, spec: Document, beside: Sequence[str] = ()) -> None:
    """Raise what `read_new_job` does unless it is a spec of a method that a worker knows.

    `beside` are the fields that may stand beside the spec, named where one is unknown.
    """
    method = spec.get("method")
    if not isinstance(method, str):
        problem = "missing_field" if method is None else "invalid_value"
        raise Problem(problem, "'method' must name a method; GET /methods lists them.", "method")
    try:
        find_spec_reader(session, method).check(spec, beside)
    except InvalidInput as error:
        raise Problem(error.code, error.message, error.param) from error


def check_k(spec: Document, dense_weights: int) -> None:
    """Raise `k_out_of_range` unless the target leaves between 1 and `dense_weights` non-zeros.

    A method whose schema lets the target out compresses nothing, and has no k to check. How many
    fit `max_bytes` depends on the network's other tensors: the job's first stage finds out.
    """
    try:
        count_nonzeros(spec.get("target") or {}, dense_weights)
    except InvalidInput as error:
        raise Problem(error.code, error.message, error.param) from error


def check_start(spec: Document) -> None:
    """Raise `unsuitable_start` if a job of this spec cannot start from a denser one's network.

    Of a method that this version does not know, or knows otherwise, the job's first stage does.
    """
    if spec["method"] not in SPECS:
        return
    try:
        read = read_spec(spec)
    except InvalidInput:
        return
    try:
        read.check_start()
    except InvalidInput as error:
        raise Problem(error.code, error.message, error.param) from error
