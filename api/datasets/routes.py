"""`POST /datasets`, `GET /datasets`, `GET /datasets/{id}`, `DELETE /datasets/{id}`."""

from functools import partial
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.datasets.intake import Arrays, dataset_from, dataset_rule, keep_dataset
from api.datasets.schemas import DatasetPage, DatasetView
from api.describing import Described, Description
from api.idempotency import IdempotencyKey
from api.openapi import FILE, LOCATION, file_body, json_body
from api.problems import (
    DATASET_CODES,
    DESCRIBE_CODES,
    FILE_CODES,
    ONCE_CODES,
    SOURCE_CODES,
    documented,
)
from api.router import Router
from api.services import Services, ServicesDep
from api.sources.asking import Looked
from api.strict_json import is_json, read_body
from api.text import PathText
from api.uploads.description import DESCRIPTION, DESCRIPTION_PARTS, described
from api.uploads.incoming import answer_by_file, answer_by_source, answer_by_upload
from api.uploads.receiving import Upload, received
from api.uploads.schemas import ByReference, UploadQuery
from api.views import created
from jobstore import audit
from jobstore.deletion import delete_dataset, drop
from jobstore.idempotency import Answer
from jobstore.labels import describe
from jobstore.tables import Dataset, Document
from jobstore.uploads import get_dataset, list_uploads

router = Router(tags=["datasets"])

CALL = "POST /datasets"


@router.post(
    "/datasets",
    status_code=201,
    summary="Upload a data set",
    response_model=DatasetView,
    openapi_extra=file_body(
        {
            "file": FILE
            | {
                "description": "`.npz` or safetensors of arrays, Parquet, or a zip or tar of class "
                "folders, idx or Parquet files, or CIFAR's python version"
            },
            **DESCRIPTION_PARTS,
        },
        required=("file",),
        by_reference=ByReference,
    ),
    responses={
        201: LOCATION,
        **documented(*FILE_CODES, *SOURCE_CODES, *DATASET_CODES, *ONCE_CODES),
    },
)
async def create(
    request: Request, services: ServicesDep, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Stream the file to the store and look into its arrays' headers.

    Class folders, MNIST's idx files, CIFAR's batches, all in a zip or tar, and Parquet in
    Hugging Face's image layout are decoded by the job. In arrays, images are uint8 `[N, H, W]`
    or `[N, H, W, C]`, labels integers `[N]`; only `x_train` and `y_train` are required. The
    same bytes are stored once, however often they are sent. A large file is better sent to
    `POST /uploads` first, and named here in JSON; or it is named where it lies, as `uri`, and
    fetched: then the answer has no bytes yet, and its `state` is `fetching`.
    """
    if is_json(request):
        new = await read_body(request, ByReference)
        if (upload_id := new.upload()) is None:
            most = services.settings.max_dataset_bytes
            begin = partial(_begin, services, new)
            return await answer_by_source(
                services, CALL, idempotency_key, new, begin, max_bytes=most, folders=True
            )
        rule = dataset_rule("upload_id", services.settings)
        act = partial(_record, services, new)
        return await answer_by_upload(services, CALL, idempotency_key, new, upload_id, rule, act)
    file = dataset_rule("file", services.settings)
    async with received(request, services, [file, *DESCRIPTION]) as form:
        said = Described(**described(form))
        return await run_in_threadpool(
            answer_by_file,
            services,
            CALL,
            idempotency_key,
            form.file(file),
            said.model_dump(),
            partial(_record, services, said),
        )


def _record(services: Services, new: Described, session: Session, upload: Upload[Arrays]) -> Answer:
    row = keep_dataset(session, services, upload, new.said())
    return created(DatasetView.model_validate(row))


def _begin(services: Services, new: ByReference, session: Session, looked: Looked) -> Answer:
    return created(DatasetView.model_validate(dataset_from(session, services, looked, new.said())))


@router.get(
    "/datasets",
    summary="List uploaded data sets",
    responses=documented("unknown_field", "invalid_value"),
)
def list_(query: Annotated[UploadQuery, Query()], services: ServicesDep) -> DatasetPage:
    """Return a page of those whose bytes are still kept."""
    with services.database.read() as session:
        page = list_uploads(session, Dataset, query.which(), **query.filters())
        data = [DatasetView.model_validate(row) for row in page.rows]
    return DatasetPage(data=data, has_more=page.next is not None, next=page.next)


@router.get(
    "/datasets/{dataset_id}",
    summary="Get an uploaded data set",
    responses=documented("not_found", "invalid_value"),
)
def get(dataset_id: PathText, services: ServicesDep) -> DatasetView:
    """Return what is known of the file; the bytes themselves are not given out again."""
    with services.database.read() as session:
        return DatasetView.model_validate(get_dataset(session, dataset_id))


@router.patch(
    "/datasets/{dataset_id}",
    summary="Change a data set's name, labels or metadata",
    openapi_extra=json_body(Description),
    responses=documented(*DESCRIBE_CODES),
)
async def change(dataset_id: PathText, request: Request, services: ServicesDep) -> DatasetView:
    """Change the fields that are sent, each as a whole; the file stays as it is."""
    changes = (await read_body(request, Description)).changes()
    return await run_in_threadpool(_change, services, dataset_id, changes)


def _change(services: Services, dataset_id: str, changes: Document) -> DatasetView:
    with services.database.write() as session:
        row = get_dataset(session, dataset_id, lock=True)
        describe(session, row, changes)
        audit.record(session, "dataset.change", dataset_id, fields=sorted(changes))
        return DatasetView.model_validate(row)


@router.delete(
    "/datasets/{dataset_id}",
    status_code=204,
    response_class=Response,
    summary="Delete an uploaded data set",
    responses=documented("not_found", "in_use", "invalid_value"),
)
def delete(dataset_id: PathText, services: ServicesDep) -> None:
    """Delete it; the bytes go, too, unless something else of yours is made of the same ones.

    What a job was made of cannot be deleted before the job.
    """
    with services.database.write() as session:
        freed = delete_dataset(session, dataset_id)
        audit.record(session, "dataset.delete", dataset_id)
    drop(services.database, services.store, freed)
