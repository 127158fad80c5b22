"""Taking in a network: what its file may be, whether it fits, and its row."""

from dataclasses import asdict

from sqlalchemy.orm import Session

from api.catalogue.lookup import find_architecture
from api.inspection import Fit, ModelHeader, fit, read_model_header
from api.models.schemas import Normalization
from api.problems import Problem
from api.services import Services
from api.sources.asking import Looked, begin
from api.uploads.keeping import keep
from api.uploads.receiving import FileRule, Upload
from jobstore import audit
from jobstore.settings import Settings
from jobstore.tables import Document, Model
from jobstore.uploads import create_model


def model_rule(part: str, settings: Settings) -> FileRule[ModelHeader]:
    """Return what the file of a network in the part `part` must pass."""
    return FileRule(part, settings.max_model_bytes, read_model_header, "malformed_model")


def check_model(
    session: Session, header: ModelHeader, architecture: str, normalization: Normalization | None
) -> Fit:
    """Fit the tensors and the normalization to the architecture.

    Raises `no_worker`, `unknown_architecture`, `tensor_mismatch`, `several_state_dicts`, or
    `invalid_value` for a normalization of another number of channels.
    """
    document = find_architecture(session, architecture)
    if (header.format == "onnx") != (architecture == "onnx"):
        raise Problem(
            "invalid_value",
            f"The file is {header.format}, the architecture {architecture!r}: an ONNX file, and no "
            "other, goes with the architecture 'onnx'.",
            "architecture",
        )
    if normalization is not None:
        _check_channels(normalization, architecture, document)
    return fit(header.state_dicts, architecture, document)


def keep_model(
    session: Session,
    services: Services,
    upload: Upload[ModelHeader],
    architecture: str,
    normalization: Normalization | None,
    fitted: Fit,
    said: Document | None = None,
) -> Model:
    """Make the staged file a blob and record it with what `check_model` found."""
    kept = keep(session, services, upload.stored)
    model = create_model(
        session,
        filename=upload.filename,
        format=upload.header.format,
        architecture=architecture,
        normalization=normalization.model_dump() if normalization else None,
        summary=asdict(fitted),
        sha256=kept.sha256,
        bytes=kept.bytes,
        said=said,
    )
    audit.record(session, "model.create", model.id, sha256=kept.sha256)
    return model


def model_from(
    session: Session,
    services: Services,
    looked: Looked,
    architecture: str,
    normalization: Normalization | None,
    said: Document | None = None,
) -> Model:
    """Record a network whose file is fetched from where it lies.

    Raises `no_worker`, `unknown_architecture`, `invalid_value` and `QuotaExceeded`.
    """
    document = find_architecture(session, architecture)
    if normalization is not None:
        _check_channels(normalization, architecture, document)
    model = create_model(
        session,
        filename=looked.filename,
        format="",
        architecture=architecture,
        normalization=normalization.model_dump() if normalization else None,
        summary={},
        sha256="",
        bytes=0,
        said=said,
        source=looked.source,
    )
    begin(session, services, looked, model)
    audit.record(session, "model.create", model.id, uri=looked.source["uri"])
    return model


def _check_channels(normalization: Normalization, name: str, architecture: Document) -> None:
    channels = architecture["input_shape"][0]
    # An ONNX graph says it inside; the job's first stage finds out.
    if channels is not None and len(normalization.mean) != channels:
        raise Problem(
            "invalid_value",
            f"'normalization' has {len(normalization.mean)} channels, {name!r} takes {channels}: "
            "give one mean and one deviation a channel.",
            "normalization.mean",
        )
