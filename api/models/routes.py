"""`POST /models`, `GET /models/{id}`, `DELETE /models/{id}`."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.idempotency import IdempotencyKey, answer_once
from api.inspection import ModelHeader
from api.models.intake import check_model, keep_model, model_rule
from api.models.schemas import ModelView, NewModelByUpload, Normalization
from api.openapi import FILE, LOCATION, file_body
from api.problems import FILE_CODES, MODEL_CODES, ONCE_CODES, documented, invalid
from api.services import Services, ServicesDep
from api.strict_json import is_json, parse_object, read_body
from api.text import PathText
from api.uploads.incoming import answer_by_upload
from api.uploads.receiving import TextRule, Upload, received
from jobstore.deletion import delete_model, drop
from jobstore.idempotency import Answer
from jobstore.uploads import get_model

router = APIRouter(tags=["models"])


def _parse_normalization(text: str) -> Normalization:
    try:
        return Normalization.model_validate(parse_object(text))
    except ValidationError as error:
        raise invalid(error.errors(), within="normalization") from error


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
            "file": FILE | {"description": "safetensors, a `.pt` of tensors only, or ONNX"},
            "architecture": {"type": "string", "examples": ["lenet"]},
            "normalization": {"$ref": "#/components/schemas/Normalization"},
        },
        required=("file", "architecture"),
        by_upload=NewModelByUpload,
    ),
    responses={
        201: LOCATION,
        **documented(
            *FILE_CODES,
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
    `POST /uploads` first, and named here in JSON.
    """
    if is_json(request):
        new = await read_body(request, NewModelByUpload)
        return await _create_by_upload(services, new, idempotency_key)
    file = model_rule("file", services.settings)
    async with received(request, services.store, [file, ARCHITECTURE, NORMALIZATION]) as form:
        return await run_in_threadpool(
            _create,
            services,
            form.file(file),
            form.text(ARCHITECTURE),
            form.optional_text(NORMALIZATION),
            idempotency_key,
        )


async def _create_by_upload(
    services: Services, new: NewModelByUpload, key: str | None
) -> JSONResponse:
    def act(session: Session, upload: Upload[ModelHeader]) -> Answer:
        return _record(session, services, upload, new.architecture, new.normalization)

    rule = model_rule("upload_id", services.settings)
    return await answer_by_upload(services, CALL, key, new, rule, act)


def _create(
    services: Services,
    upload: Upload[ModelHeader],
    architecture: str,
    normalization: Normalization | None,
    key: str | None,
) -> JSONResponse:
    def act(session: Session) -> Answer:
        return _record(session, services, upload, architecture, normalization)

    content = {
        "file": [upload.filename, upload.stored.sha256],
        "architecture": architecture,
        "normalization": normalization and normalization.model_dump(),
    }
    return answer_once(services.database, CALL, key, content, act)


def _record(
    session: Session,
    services: Services,
    upload: Upload[ModelHeader],
    architecture: str,
    normalization: Normalization | None,
) -> Answer:
    fitted = check_model(session, upload.header, architecture, normalization)
    row = keep_model(session, services, upload, architecture, normalization, fitted)
    view = ModelView.of(row)
    return Answer(201, {"Location": view.links["self"]}, view.model_dump(mode="json"))


@router.get(
    "/models/{model_id}",
    summary="Get an uploaded network",
    responses=documented("not_found", "invalid_value"),
)
def get(model_id: PathText, services: ServicesDep) -> ModelView:
    """Return what is known of the file; the bytes themselves are not given out again."""
    with services.database.read() as session:
        return ModelView.of(get_model(session, model_id))


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
    drop(services.database, services.store, freed)
