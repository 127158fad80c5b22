"""Creates a job, from ids or from files that come with it."""

from collections.abc import Callable

from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from api.datasets.intake import Arrays, dataset_from, keep_dataset
from api.idempotency import answer_once, replayed
from api.inspection import ModelHeader
from api.jobs.resources import offers_for, queue_for
from api.jobs.schemas import JobView, NewJob, NewJobByIds, NewJobWithFiles
from api.jobs.spec import check_k, check_start, read_new_job
from api.models.intake import check_model, keep_model, model_from
from api.problems import Problem
from api.services import Services
from api.sources.asking import Looked, deliver, look_at, results_of
from api.uploads.receiving import Upload
from api.webhooks.routes import checked
from api.webhooks.schemas import WebhookView
from jobstore import audit, traces
from jobstore.errors import Expired, NotFetched, NotFound, UnsuitableStart
from jobstore.idempotency import Answer
from jobstore.jobs import create_job
from jobstore.quotas import check_queue
from jobstore.starts import Start, hold_start
from jobstore.tables import Dataset, Document, Model
from jobstore.uploads import hold_uploads
from jobstore.wakeups import wake
from jobstore.webhooks import webhook_of

CALL = "POST /jobs"


def create_by_ids(services: Services, body: Document, key: str | None) -> JSONResponse:
    """Queue a job on a model and a data set that were uploaded before."""

    services.disk.check()
    looked: dict[str, Looked] = {}
    if names_files_elsewhere(body):
        known = replayed(services.database, CALL, key, {"body": body})
        if known is not None:
            return known
        with services.database.read() as session:
            new, _ = read_new_job(session, body, NewJobByIds)
        looked = _looked(services, new)

    def act(session: Session) -> Answer:
        new, spec = read_new_job(session, body, NewJobByIds)
        model, dataset = _inputs(session, services, new, looked)
        # Absent in a model of an older version: then the job's first stage finds out.
        if (dense_weights := model.summary.get("dense_weights")) is not None:
            check_k(spec, dense_weights)
        check_queue(session, services.terms.max_queued_jobs)
        return _queue(session, services, new, spec, model, dataset)

    return _answer(services, key, {"body": body}, act)


def names_files_elsewhere(body: Document) -> bool:
    """Tell whether the service has to ask another server for what the job is made of."""
    return "model" in body or "dataset" in body


def _looked(services: Services, new: NewJobByIds) -> dict[str, Looked]:
    """Look at the files that lie elsewhere, before anything is begun: it takes its time."""
    _check_named(new)
    settings, looked = services.settings, {}
    if new.model is not None:
        most = settings.max_model_bytes
        looked["model"] = look_at(services, new.model, max_bytes=most, param="model.uri")
    if new.dataset is not None:
        most, param = settings.max_dataset_bytes, "dataset.uri"
        looked["dataset"] = look_at(
            services, new.dataset, max_bytes=most, param=param, folders=True
        )
    return looked


def _check_named(new: NewJobByIds) -> None:
    for noun in ("model", "dataset"):
        id, source = getattr(new, f"{noun}_id"), getattr(new, noun)
        if id is None and source is None:
            detail = f"'{noun}_id' is required, or '{noun}' with the 'uri' where it lies."
            raise Problem("missing_field", detail, f"{noun}_id")
        if id is not None and source is not None:
            detail = f"Give one of '{noun}_id' and '{noun}'."
            raise Problem("invalid_value", detail, noun)
    if new.model is not None and new.architecture is None:
        detail = "'architecture' is required with a model that lies elsewhere."
        raise Problem("missing_field", detail, "architecture")
    for name in ("architecture", "normalization"):
        if new.model is None and getattr(new, name) is not None:
            detail = (
                f"{name!r} is the one that 'model_id' was uploaded with; give it for a model that "
                "lies elsewhere only."
            )
            raise Problem("unknown_field", detail, name)


def _inputs(
    session: Session, services: Services, new: NewJobByIds, looked: dict[str, Looked]
) -> tuple[Model, Dataset]:
    """Return the model and the data set, held until the transaction ends."""
    _check_named(new)
    model_id, dataset_id = new.model_id, new.dataset_id
    if "model" in looked:
        assert new.architecture is not None
        model = model_from(session, services, looked["model"], new.architecture, new.normalization)
        model_id = model.id
    if "dataset" in looked:
        dataset_id = dataset_from(session, services, looked["dataset"]).id
    assert model_id is not None
    assert dataset_id is not None
    try:
        return hold_uploads(session, model_id, dataset_id)
    except (NotFound, Expired, NotFetched) as error:
        raise not_uploaded(error) from error


def create_with_files(
    services: Services,
    new: NewJobWithFiles,
    spec: Document,
    model: Upload[ModelHeader],
    dataset: Upload[Arrays],
    key: str | None,
) -> JSONResponse:
    """Record the model and the data set that came with the request, and queue a job on them."""

    def act(session: Session) -> Answer:
        fitted = check_model(session, model.header, new.architecture, new.normalization)
        # None where only the job knows: its first stage finds out.
        if fitted.dense_weights is not None:
            check_k(spec, fitted.dense_weights)
        # Before anything is kept.
        check_queue(session, services.terms.max_queued_jobs)
        kept = keep_model(session, services, model, new.architecture, new.normalization, fitted)
        data = keep_dataset(session, services, dataset)
        return _queue(session, services, new, spec, kept, data)

    content = {
        "model": [model.filename, model.stored.sha256],
        "dataset": [dataset.filename, dataset.stored.sha256],
        "spec": [new.model_dump(), spec],
    }
    return _answer(services, key, content, act)


def _queue(
    session: Session,
    services: Services,
    new: NewJob,
    spec: Document,
    model: Model,
    dataset: Dataset,
) -> Answer:
    start = _start(session, new.start_from, spec, model, dataset) if new.start_from else None
    results = results_of(services, new.results, "results.uri") if new.results else None
    webhook, secret = checked(services, new.webhook, "webhook.url") if new.webhook else (None, None)
    job = create_job(
        session,
        spec=spec,
        model=model,
        dataset=dataset,
        max_attempts=services.settings.max_attempts,
        time_limit_s=new.time_limit_s or services.settings.time_limit_s,
        name=new.name,
        labels=new.labels,
        metadata=new.metadata,
        priority=new.priority,
        device=new.resources.device if new.resources else None,
        gpus=(new.resources and new.resources.gpus) or 0,
        webhook=webhook,
        start=start,
    )
    if results is not None:
        deliver(session, job, *results)
    audit.record(session, "job.create", job.id)
    traces.current().annotate({"atmc.job.id": job.id})
    view = JobView.of(job, offers_for(session, services.settings, [job]))
    body = view.model_dump(mode="json")
    once = {}
    if webhook is not None and (made := webhook_of(session, job.id)) is not None:
        shown = WebhookView.model_validate(made).model_dump(mode="json")
        # A repeated answer has the job and its webhook, without the secret.
        body["webhook"] = shown | {"secret": None}
        once = {"webhook": {"secret": secret}}
    return Answer(202, {"Location": view.links["self"]}, body, once)


def _start(session: Session, job_id: str, spec: Document, model: Model, dataset: Dataset) -> Start:
    check_start(spec)
    try:
        return hold_start(session, job_id, model=model, dataset=dataset)
    except UnsuitableStart as error:
        detail = f"The job cannot start from {job_id!r}: {error}."
        raise Problem("unsuitable_start", detail, "start_from") from error


def _answer(
    services: Services, key: str | None, content: Document, act: Callable[[Session], Answer]
) -> JSONResponse:
    response = answer_once(services.database, CALL, key, content, act)
    # After the commit and the answer: the sweep finds the job even if this is lost.
    response.background = BackgroundTask(wake, services.celery, queue_for(response))
    return response


def not_uploaded(error: NotFound | Expired | NotFetched) -> Problem:
    """Return the refusal of what is to be made of a file that is not there."""
    if isinstance(error, NotFetched):
        detail = f"{str(error).capitalize()}: its 'source' says why; name it again."
        return Problem("invalid_value", detail, f"{error.kind}_id")
    there = "There is no" if isinstance(error, NotFound) else "Expired, and no longer kept, is the"
    detail = f"{there} {error.kind} {error.id!r}: upload it with POST /{error.kind}s first."
    return Problem("invalid_value", detail, f"{error.kind}_id")
