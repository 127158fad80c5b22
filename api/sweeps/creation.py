"""Creates a sweep: makes every trial's spec, checks it as that of a job, and writes all down."""

from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api.idempotency import answer_once
from api.jobs.creation import not_uploaded
from api.jobs.spec import check_k, check_spec, check_start
from api.problems import Problem
from api.services import Services
from api.strict_json import as_model
from api.sweeps.schemas import NewSweep, SweepWithTrials
from api.webhooks.routes import checked
from api.webhooks.schemas import WebhookView
from jobstore import audit, sweeps, traces
from jobstore.dialects import now
from jobstore.errors import Expired, NotFound
from jobstore.idempotency import Answer
from jobstore.quotas import check_sweeps
from jobstore.sweeps import NewTrial
from jobstore.tables import Dataset, Document, Model
from jobstore.uploads import hold_uploads
from jobstore.webhooks import webhook_of_sweep
from tuning import grid
from tuning.grid import InvalidGrid, Planned


def create(services: Services, body: Document, key: str | None) -> JSONResponse:
    """Begin a sweep on a model and a data set that were uploaded before."""
    services.disk.check()

    def act(session: Session) -> Answer:
        new = as_model(body, NewSweep)
        _check_kind(new)
        planned = _planned(new)
        try:
            model, dataset = hold_uploads(session, new.model_id, new.dataset_id)
        except (NotFound, Expired) as error:
            raise not_uploaded(error) from error
        for trial in planned:
            _check(session, trial, model)
        check_sweeps(session, services.terms.max_queued_jobs)
        return _begin(session, services, new, model, dataset, planned)

    return answer_once(services.database, "POST /sweeps", key, {"body": body}, act)


def _check_kind(new: NewSweep) -> None:
    kinds = {"grid": new.grid, "specs": new.specs, "goal": new.goal}
    given = [name for name, value in kinds.items() if value is not None]
    if not given:
        detail = "Give 'grid', 'specs' or 'goal': what the trials are to be."
        raise Problem("missing_field", detail, "grid")
    if len(given) > 1:
        detail = f"Give one of 'grid', 'specs' and 'goal'; these are {' and '.join(given)}."
        raise Problem("invalid_value", detail, given[1])
    for name in ("minimise", "trials"):
        if new.goal is None and getattr(new, name) is not None:
            raise Problem("invalid_value", f"{name!r} is for a goal; leave it out.", name)


def _planned(new: NewSweep) -> list[Planned]:
    """Return the trials that are known beforehand."""
    try:
        if new.grid is not None:
            axes = new.grid.model_dump(exclude_none=True)
            _check_count(grid.count(axes), new.max_trials, "grid")
            return grid.expand(new.spec, axes)
        _check_count(len(new.specs or []), new.max_trials, "specs")
        return grid.lay_over(new.spec, new.specs or [])
    except InvalidGrid as error:
        raise Problem("invalid_value", f"{error.place!r}: {error}.", error.place) from error


def _check_count(count: int, most: int, param: str) -> None:
    if count > most:
        detail = f"There are {count:,} trials, and {most:,} at most may be: leave some out."
        raise Problem("too_many_trials", detail, param)


def _check(session: Session, trial: Planned, model: Model) -> None:
    """Refuse a spec that `POST /jobs` would, by the place in the request that made it so."""
    try:
        check_spec(session, trial.spec)
        if (dense_weights := model.summary.get("dense_weights")) is not None:
            check_k(trial.spec, dense_weights)
    except Problem as problem:
        place = trial.place_of(problem.param)
        raise Problem(problem.code, problem.detail, place, problem.headers) from problem


def _begin(
    session: Session,
    services: Services,
    new: NewSweep,
    model: Model,
    dataset: Dataset,
    planned: list[Planned],
) -> Answer:
    webhook, secret = checked(services, new.webhook, "webhook.url") if new.webhook else (None, None)
    specs = [trial.spec for trial in planned]
    densers = grid.densers(specs)
    trials = [
        NewTrial(
            trial.spec,
            trial.point,
            grid.shares(trial.spec),
            denser if new.from_denser and _may_start(trial.spec) else None,
        )
        for trial, denser in zip(planned, densers, strict=True)
    ]
    sweep = sweeps.create_sweep(session, _row(new), model, dataset, trials, webhook)
    audit.record(session, "sweep.create", sweep.id, trials=len(trials))
    traces.current().annotate({"atmc.sweep.id": sweep.id})
    view = SweepWithTrials.of(sweep, sweeps.list_trials(session, sweep.id), now(session))
    body = view.model_dump(mode="json")
    once = {}
    if webhook is not None and (made := webhook_of_sweep(session, sweep.id)) is not None:
        shown = WebhookView.model_validate(made).model_dump(mode="json")
        # A repeated answer has the sweep and its webhook, without the secret.
        body["webhook"] = shown | {"secret": None}
        once = {"webhook": {"secret": secret}}
    return Answer(202, {"Location": view.links["self"]}, body, once)


def _may_start(spec: Document) -> bool:
    """Tell whether a job of this spec can start from a denser one's network."""
    try:
        check_start(spec)
    except Problem:
        return False
    return True


def _row(new: NewSweep) -> sweeps.NewSweep:
    asked = new.model_dump(include={"spec", "specs", "from_denser"}) | {
        "grid": new.grid and new.grid.model_dump(exclude_none=True),
        "goal": new.goal and new.goal.model_dump(),
        "minimise": new.minimise,
        "trial_limit": new.trials,
    }
    return sweeps.NewSweep(
        asked=asked,
        max_parallel=new.max_parallel,
        name=new.name,
        priority=new.priority,
        device=new.resources.device if new.resources else None,
        gpus=(new.resources and new.resources.gpus) or 0,
        time_limit_s=new.time_limit_s,
        trial_time_limit_s=new.trial_time_limit_s,
    )
