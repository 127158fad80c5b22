"""`POST /models`, `GET /models`, `GET /models/{id}`, `DELETE /models/{id}`."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.describing import Description
from api.idempotency import IdempotencyKey
from api.inspection import ModelHeader
from api.models.intake import check_model, keep_model, model_from, model_rule
from api.models.schemas import ModelPage, ModelView, NewModel, NewModelByReference, Normalization
from api.openapi import FILE, LOCATION, file_body, json_body
from api.problems import (
    DESCRIBE_CODES,
    FILE_CODES,
    MODEL_CODES,
    ONCE_CODES,
    SOURCE_CODES,
    documented,
)
from api.router import Router
from api.services import Services, ServicesDep
from api.sources.asking import Looked
from api.strict_json import as_model, is_json, parse_object, read_body
from api.text import PathText
from api.uploads.description import DESCRIPTION, DESCRIPTION_PARTS, described
from api.uploads.incoming import answer_by_file, answer_by_source, answer_by_upload
from api.uploads.receiving import TextRule, Upload, received
from api.uploads.schemas import UploadQuery
from api.views import created
from jobstore import audit
from jobstore.deletion import delete_model, drop
from jobstore.idempotency import Answer
from jobstore.labels import describe
from jobstore.tables import Document, Model
from jobstore.uploads import get_model, list_uploads

router = Router(tags=["models"])


def _parse_normalization(text: str) -> Normalization:
    return as_model(parse_object(text), Normalization, within="normalization")


CALL = "POST /models"
ARCHITECTURE = TextRule("architecture", str.strip)
NORMALIZATION = TextRule("normalization", _parse_normalization)


@router.post(
    "/models",
    status_code=201,
    summary="Upload a network",
    response_model=ModelView,
    openapi_extra=file_body(
        {
            "file": FILE
            | {"description": "safetensors, a `.pt` of tensors and plain data, or ONNX"},
            "architecture": {"type": "string", "examples": ["lenet"]},
            "normalization": {"$ref": "#/components/schemas/Normalization"},
            **DESCRIPTION_PARTS,
        },
        required=("file", "architecture"),
        by_reference=NewModelByReference,
    ),
    responses={
        201: LOCATION,
        **documented(
            *FILE_CODES,
            *SOURCE_CODES,
            "unknown_architecture",
            *MODEL_CODES,
            *ONCE_CODES,
            "no_worker",
        ),
    },
)
async def create(
    request: Request, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Stream the file to the store and look into its header; nothing in it is executed.

    The same bytes are stored once, however often they are sent. A large file is better sent to
    `POST /uploads` first, and named here in JSON; or it is named where it lies, as `uri`, and
    fetched: then the answer has no bytes yet, and its `state` is `fetching`.
    """
    if is_json(request):
        new = await read_body(request, NewModelByReference)
        if (upload_id := new.upload()) is None:
            most = services.settings.max_model_bytes
            begin = partial(_begin, services, new)
            return await answer_by_source(
                services, CALL, idempotency_key, new, begin, max_bytes=most
            )
        rule = model_rule("upload_id", services.settings)
        act = partial(_record, services, new)
        return await answer_by_upload(services, CALL, idempotency_key, new, upload_id, rule, act)
    file = model_rule("file", services.settings)
    async with received(
        request, services, [file, ARCHITECTURE, NORMALIZATION, *DESCRIPTION]
    ) as form:
        said = NewModel(
            architecture=form.text(ARCHITECTURE),
            normalization=form.optional_text(NORMALIZATION),
            **described(form),
        )
        return await run_in_threadpool(
            answer_by_file,
            services,
            CALL,
            idempotency_key,
            form.file(file),
            said.model_dump(),
            partial(_record, services, said),
        )


def _record(
    services: Services, new: NewModel, session: Session, upload: Upload[ModelHeader]
) -> Answer:
    fitted = check_model(session, upload.header, new.architecture, new.normalization)
    row = keep_model(
        session, services, upload, new.architecture, new.normalization, fitted, new.said()
    )
    return created(ModelView.model_validate(row))


def _begin(services: Services, new: NewModel, session: Session, looked: Looked) -> Answer:
    row = model_from(session, services, looked, new.architecture, new.normalization, new.said())
    return created(ModelView.model_validate(row))


@router.get(
    "/models",
    summary="List uploaded networks",
    responses=documented("unknown_field", "invalid_value"),
)
def list_(query: Annotated[UploadQuery, Query()], services: ServicesDep) -> ModelPage:
    """Return a page of those whose bytes are still kept."""
    with services.database.read() as session:
        page = list_uploads(session, Model, query.which(), **query.filters())
        data = [ModelView.model_validate(row) for row in page.rows]
    return ModelPage(data=data, has_more=page.next is not None, next=page.next)


@router.get(
    "/models/{model_id}",
    summary="Get an uploaded network",
    responses=documented("not_found", "invalid_value"),
)
def get(model_id: PathText, services: ServicesDep) -> ModelView:
    """Return what is known of the file; the bytes themselves are not given out again."""
    with services.database.read() as session:
        return ModelView.model_validate(get_model(session, model_id))


@router.patch(
    "/models/{model_id}",
    summary="Change a model's name, labels or metadata",
    openapi_extra=json_body(Description),
    responses=documented(*DESCRIBE_CODES),
)
async def change(model_id: PathText, request: Request, services: ServicesDep) -> ModelView:
    """Change the fields that are sent, each as a whole; the file stays as it is."""
    changes = (await read_body(request, Description)).changes()
    return await run_in_threadpool(_change, services, model_id, changes)


def _change(services: Services, model_id: str, changes: Document) -> ModelView:
    with services.database.write() as session:
        row = get_model(session, model_id, lock=True)
        describe(session, row, changes)
        audit.record(session, "model.change", model_id, fields=sorted(changes))
        return ModelView.model_validate(row)


@router.delete(
    "/models/{model_id}",
    status_code=204,
    response_class=Response,
    summary="Delete an uploaded network",
    responses=documented("not_found", "in_use", "invalid_value"),
)
def delete(model_id: PathText, services: ServicesDep) -> None:
    """Delete it; the bytes go, too, unless something else of yours is made of the same ones.

    What a job was made of cannot be deleted before the job.
    """
    with services.database.write() as session:
        freed = delete_model(session, model_id)
        audit.record(session, "model.delete", model_id)
    drop(services.database, services.store, freed)
