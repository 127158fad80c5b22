"""`POST /uploads/direct`: a file that its owner puts straight into the object store."""

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from api.openapi import LOCATION, json_body
from api.problems import Problem, documented
from api.router import Router
from api.services import Services, ServicesDep
from api.strict_json import read_body
from api.uploads.beginning import begin, check_size, forget
from api.uploads.schemas import DirectUpload, NewDirectUpload, UploadView
from jobstore.incoming import URL_LIFETIME_S

router = Router(tags=["uploads"])


@router.post(
    "/uploads/direct",
    status_code=201,
    summary="Begin an upload straight into the object store",
    response_model=DirectUpload,
    openapi_extra=json_body(NewDirectUpload),
    responses={
        201: LOCATION,
        **documented(
            "malformed_json",
            "missing_field",
            "unknown_field",
            "invalid_value",
            "file_too_large",
            "no_direct_uploads",
        ),
    },
)
async def create_direct(request: Request, services: ServicesDep) -> JSONResponse:
    """Return a URL for one PUT of the file, where the store has such URLs (S3).

    The store refuses another length, a second PUT, and one without the headers of the answer. What
    lies there is read through, and held against size and digest, when it is used as
    `upload_id` of `POST /models` or `POST /datasets`.
    """
    new = await read_body(request, NewDirectUpload)
    check_size(new.bytes, services.settings)
    view = await run_in_threadpool(_begin_direct, services, new)
    headers = {"Location": view.links["self"]}
    return JSONResponse(view.model_dump(mode="json"), status_code=201, headers=headers)


def _begin_direct(services: Services, new: NewDirectUpload) -> DirectUpload:
    upload = begin(services, filename=new.filename, bytes=new.bytes, sha256=new.sha256)
    assert upload.direct_key is not None  # it has a digest
    lifetime_s = min(URL_LIFETIME_S, services.settings.upload_lifetime_s)
    put = services.store.presign_put(upload.direct_key, bytes=upload.bytes, expires_s=lifetime_s)
    if put is None:
        forget(services, upload.id)
        detail = "This service's store has no URLs of its own: use POST /uploads."
        raise Problem("no_direct_uploads", detail)
    return DirectUpload(**vars(UploadView.model_validate(upload)), **vars(put))
