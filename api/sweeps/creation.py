"""Creates a sweep: makes every trial's spec, checks it as that of a job, and writes all down."""

from copy import deepcopy

from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api.idempotency import answer_once
from api.jobs.creation import not_uploaded
from api.jobs.spec import check_k, check_spec, check_start
from api.problems import Problem
from api.services import Services
from api.strict_json import as_model
from api.sweeps.schemas import Goal, NewSweep, SweepWithTrials
from api.webhooks.routes import checked
from api.webhooks.schemas import WebhookView
from atmc_spec import LEVELS
from jobstore import audit, sweeps, traces
from jobstore.dialects import now
from jobstore.errors import Expired, NotFetched, NotFound
from jobstore.idempotency import Answer
from jobstore.quotas import check_sweeps
from jobstore.states import FileState
from jobstore.sweeps import NewTrial
from jobstore.tables import Dataset, Document, Model
from jobstore.uploads import hold_uploads
from jobstore.webhooks import webhook_of_sweep
from tuning import grid
from tuning.goal import DEFAULT_TRIALS, WORST
from tuning.goal import Goal as TrialGoal
from tuning.grid import InvalidGrid, Planned, size_of
from tuning.search import Try


def create(services: Services, body: Document, key: str | None) -> JSONResponse:
    """Begin a sweep on a model and a data set that were uploaded before."""
    services.disk.check()

    def act(session: Session) -> Answer:
        new = as_model(body, NewSweep)
        _check_kind(new)
        if new.goal is not None:
            new = _with_goal(new, new.goal)
        planned = _planned(new)
        try:
            model, dataset = hold_uploads(session, new.model_id, new.dataset_id)
        except (NotFound, Expired, NotFetched) as error:
            raise not_uploaded(error) from error
        for noun, row in (("model", model), ("dataset", dataset)):
            if row.state == FileState.FETCHING:
                detail = f"The {noun} is still being fetched: begin the sweep once it is ready."
                raise Problem("invalid_value", detail, f"{noun}_id")
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
        if new.goal is not None:
            return [_first_of_goal(new)]
        if new.grid is not None:
            axes = new.grid.model_dump(exclude_none=True)
            _check_count(grid.count(axes), new.max_trials, "grid")
            return grid.expand(new.spec, axes)
        _check_count(len(new.specs or []), new.max_trials, "specs")
        return grid.lay_over(new.spec, new.specs or [])
    except InvalidGrid as error:
        raise Problem("invalid_value", f"{error.place!r}: {error}.", error.place) from error


def _with_goal(new: NewSweep, goal: Goal) -> NewSweep:
    """Return it with the defaults of a goal, and with the goal's attack among those that run."""
    spec, target = deepcopy(new.spec), new.spec.get("target")
    evaluation = spec.get("evaluation", {})
    if not isinstance(evaluation, dict) or not isinstance(target or {}, dict):
        return new  # Refused with the spec.
    if size_of(spec) is not None and (target or {}).get("bits") is not None:
        detail = "The spec gives both size and bits, so there is nothing to choose: leave one out."
        raise Problem("invalid_value", detail, "spec.target")
    if "split" in evaluation:
        detail = (
            "A goal's trials run on validation images, its answer on the test split: leave out."
        )
        raise Problem("invalid_value", f"'split': {detail}", "spec.evaluation.split")
    quick = LEVELS["quick"][0]
    if goal.attack != WORST:
        level = evaluation.get("level", "quick")
        run = evaluation.get("attacks") or (LEVELS[level][0] if level in LEVELS else ())
        if goal.attack not in run and not {"attacks", "level"} & evaluation.keys():
            spec["evaluation"] = evaluation | {"attacks": [*quick, goal.attack]}
        elif goal.attack not in run:
            detail = f"The trials' reports have no {goal.attack}: add it to 'evaluation.attacks'."
            raise Problem("invalid_value", detail, "goal.attack")
    defaults = {"minimise": new.minimise or "file_bytes", "trials": new.trials or DEFAULT_TRIALS}
    return new.model_copy(update={"spec": spec, **defaults})


def _first_of_goal(new: NewSweep) -> Planned:
    """Return what a goal tries first: the others differ in density and bits only."""
    goal = TrialGoal.of(_asked(new))
    assert goal is not None
    chosen = goal.decide([])
    assert isinstance(chosen, Try)
    spec, point = goal.spec_of(chosen)
    return Planned(spec, point)


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
    starts = [new.from_denser and _may_start(spec) for spec in specs]
    trials = [
        NewTrial(trial.spec, trial.point, grid.shares(trial.spec), denser if may_start else None)
        for trial, denser, may_start in zip(planned, densers, starts, strict=True)
    ]
    row = _row(new, _asked(new) | {"starts": all(starts)})
    # A goal's first trial is the keeper's choice, as the others are.
    trials = [] if new.goal else trials
    sweep = sweeps.create_sweep(session, row, model, dataset, trials, webhook)
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


def _asked(new: NewSweep) -> Document:
    return new.model_dump(include={"labels", "spec", "specs", "from_denser"}) | {
        "grid": new.grid and new.grid.model_dump(exclude_none=True),
        "goal": new.goal and new.goal.model_dump(),
        "minimise": new.minimise,
        "trial_limit": new.trials,
    }


def _row(new: NewSweep, asked: Document) -> sweeps.NewSweep:
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
