# Written from the API's OpenAPI document by `make generate`.
"""What the service answers, field by field. A newer service may add fields."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict


class Array(TypedDict):
    """One array of a data set."""

    dtype: str
    shape: list[int]


class Artifact(TypedDict):
    """A file that a job made."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    created_at: str
    links: dict[str, str]
    """Paths of the row itself, as `self`, and of what belongs to it."""


class Attempt(TypedDict):
    """One try of a delivery."""

    number: int
    at: str
    status: int | None
    """The receiver's answer; null if none came."""

    error: str | None
    seconds: float


class Audit(TypedDict):
    """A record: who did what with which key, from where."""

    id: str
    time: str
    """RFC 3339 in UTC, in the form that the hash has it."""

    tenant: str
    """Whose log it is in; `-` is nobody's."""

    actor: str
    action: str
    object: str | None
    """The id or name of what it was done to."""

    address: str | None
    """The sender's address."""

    request: str | None
    """The answer's `X-Request-Id`."""

    outcome: str
    detail: dict[str, Any] | None
    seq: int
    """Its number in its tenant's chain, from 1 without gaps."""

    previous: str
    """The hash of the record before it."""

    hash: str
    """SHA-256 (hex) of the record's JSON without `hash`: names sorted, no white space, UTF-8."""


class Chain(TypedDict):
    """Where a tenant's chain stands. Keep it elsewhere: a log that was cut does not lead to it."""

    tenant: str
    seq: int
    """The newest record's number."""

    hash: str
    """The newest record's hash."""

    sealed_at: str
    expired_seq: int
    """The last record that has expired; 0: none has."""

    expired_hash: str


class Connection(TypedDict):
    """A connection of the caller's tenant."""

    name: str
    kind: Literal["s3", "https"]
    read: list[str]
    """What may be fetched: these, and what lies below them."""

    write: list[str]
    """Where results may be put."""


class Counts(TypedDict):
    """How many trials are in each state; those that validate count as running."""

    planned: NotRequired[int]
    queued: NotRequired[int]
    running: NotRequired[int]
    succeeded: NotRequired[int]
    failed: NotRequired[int]
    cancelled: NotRequired[int]
    skipped: NotRequired[int]


class Delivery(TypedDict):
    """A message to a webhook; its id is sent as `webhook-id`."""

    id: str
    type: str
    job_id: str | None
    sweep_id: str | None
    created_at: str
    attempts: int
    next_attempt_at: str | None
    delivered_at: str | None
    links: dict[str, str]
    """Paths of the delivery and of telling it again."""

    state: Literal["waiting", "delivered", "given_up"]
    """Whether the message waits, has been delivered, or was given up."""


class DeliveryWithAttempts(TypedDict):
    """A delivery with its tries."""

    id: str
    type: str
    job_id: str | None
    sweep_id: str | None
    created_at: str
    attempts: int
    next_attempt_at: str | None
    delivered_at: str | None
    log: list[Attempt]
    links: dict[str, str]
    """Paths of the delivery and of telling it again."""

    state: Literal["waiting", "delivered", "given_up"]
    """Whether the message waits, has been delivered, or was given up."""


class DirectUpload(TypedDict):
    """Where to PUT the file."""

    id: str
    filename: str
    bytes: int
    received: int
    """Bytes that have arrived; those of a direct upload are not counted."""

    sha256: str | None
    """The digest that a direct upload must have."""

    created_at: str
    expires_at: str
    url: str
    """Takes one PUT of a file of the announced length, for 3600 seconds at most."""

    headers: dict[str, str]
    """The headers that the PUT must have, beside its Content-Length."""

    links: dict[str, str]
    """Paths of the row itself, as `self`, and of what belongs to it."""


class Entry(TypedDict):
    """One thing that may be asked for."""

    name: str
    description: str


class Event(TypedDict):
    """Something that happened to a job; the other fields depend on the type."""

    seq: int
    """Counts from 1 within the job or sweep, without gaps."""

    time: str
    type: str
    attempt: int
    trace_id: str | None
    """The job's trace, if the service keeps traces."""

    state: NotRequired[str]
    stage: NotRequired[str]
    status: NotRequired[str]
    job_id: NotRequired[str | None]
    epoch: NotRequired[int]
    epochs: NotRequired[int]
    progress: NotRequired[float]
    eta_s: NotRequired[float | None]
    loss: NotRequired[float | None]
    validation_accuracy: NotRequired[float | None]
    validation_images: NotRequired[int | None]
    code: NotRequired[str | None]
    message: NotRequired[str | None]
    param: NotRequired[str | None]


FileState: TypeAlias = Literal["fetching", "ready", "failed"]
"""Whether a model or data set has its bytes: those that are fetched come later."""


class Goal(TypedDict):
    """What must hold: the lower end of the interval of the robust accuracy is no less than this."""

    robust_accuracy: float
    attack: NotRequired[
        Literal[
            "worst",
            "fgsm",
            "pgd",
            "pgd_cw",
            "pgd_dlr",
            "wrm",
            "autoattack",
            "apgd_ce",
            "apgd_t",
            "fab_t",
            "square",
            "pgd_smooth",
        ]
    ]
    """One of the report's attacks, or the worst case of all of them."""


class Health(TypedDict):
    """The process answers."""

    status: NotRequired[str]


class Interval(TypedDict):
    """A share of the evaluated images with its 95 % interval."""

    accuracy: float
    low: float
    high: float


class JobError(TypedDict):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


JobState: TypeAlias = Literal["queued", "validating", "running", "succeeded", "failed", "cancelled"]
"""What a job is doing, as the API shows it."""


class Normalization(TypedDict):
    """Mean and deviation a channel, applied to images in [0, 1] inside the network."""

    mean: list[float]
    std: list[float]


class ProblemDocument(TypedDict):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    """What was found, what is expected, and what to do next."""

    code: str
    """Stable and machine-readable."""

    param: str | None
    """The offending field (dotted path), part, array or tensor."""


class Resources(TypedDict):
    """The devices that the job is to run on."""

    device: Literal["cpu", "gpu"]
    gpus: NotRequired[int | None]
    """GPUs that train together; 1 by default with `gpu`."""


class Schema(TypedDict):
    """A schema that is published."""

    name: str
    title: str
    description: str
    links: dict[str, str]


Scope: TypeAlias = Literal["jobs:read", "jobs:write", "audit:read", "tenant:admin", "admin"]
"""The rights that a key gives its holder."""


class SigningKey(TypedDict):
    """A public key of the workers'."""

    id: str
    """The SHA-256 of the key as SubjectPublicKeyInfo in DER."""

    public_key: str
    """The Ed25519 key in PEM."""

    published_at: str
    """When a worker last started with it."""


class SweepEvent(TypedDict):
    """Something that happened to a sweep; the other fields depend on the type."""

    seq: int
    """Counts from 1 within the job or sweep, without gaps."""

    time: str
    type: str
    state: NotRequired[str]
    message: NotRequired[str | None]
    index: NotRequired[int]
    job_id: NotRequired[str | None]
    reason: NotRequired[str | None]


SweepState: TypeAlias = Literal["running", "succeeded", "failed", "cancelled"]
"""What a sweep is doing, as the API shows it: it runs until its last trial has ended."""


class Sweep(TypedDict):
    """A sweep as it is now, without its trials."""

    id: str
    name: str | None
    labels: NotRequired[dict[str, str]]
    """Each trial's labels."""

    state: SweepState
    model_id: str
    dataset_id: str
    spec: dict[str, Any]
    grid: dict[str, Any] | None
    specs: list[dict[str, Any]] | None
    goal: Goal | None
    minimise: str | None
    trial_limit: int | None
    """A goal's trials at most."""

    priority: int
    resources: Resources | None
    max_parallel: int
    time_limit_s: float | None
    trial_time_limit_s: float | None
    from_denser: bool
    counts: Counts
    progress: float
    """Share of the whole sweep that is done."""

    eta_s: float | None
    """Seconds to the end, from the trials so far."""

    seconds: float | None
    """Seconds since the first trial began to run."""

    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested_at: str | None
    front: list[int]
    """The trials on the Pareto front of robust accuracy, clean accuracy and file bytes, and latency where all have it."""

    best: int | None
    """Of a grid, the trial of the greatest robust accuracy, the smallest of these; of a goal, its answer."""

    message: str | None
    """How it ended, in words, where there is more to say."""

    links: dict[str, str]


class Terms(TypedDict):
    """A tenant's limits, and for how many seconds after a job's end things are kept."""

    max_stored_bytes: int | None
    max_queued_jobs: int | None
    max_running_jobs: int | None
    requests_per_minute: int | None
    keep_uploads_s: float | None
    keep_checkpoints_s: float | None
    keep_artifacts_s: float | None
    keep_events_s: float | None


class Threshold(TypedDict):
    """One threshold, and whether the job's figure meets it."""

    name: str
    bound: Literal["at_least", "at_most"]
    limit: float
    figure: float
    passed: bool


class TransferError(TypedDict):
    """Why a try to fetch or to put something failed."""

    code: str
    message: str


TrialState: TypeAlias = Literal[
    "planned", "queued", "validating", "running", "succeeded", "failed", "cancelled", "skipped"
]
"""What a trial is doing: its job's state, once there is a job."""


class Upload(TypedDict):
    """An upload that is on its way."""

    id: str
    filename: str
    bytes: int
    received: int
    """Bytes that have arrived; those of a direct upload are not counted."""

    sha256: str | None
    """The digest that a direct upload must have."""

    created_at: str
    expires_at: str
    links: dict[str, str]
    """Paths of the row itself, as `self`, and of what belongs to it."""


class Waiting(TypedDict):
    """Why a queued job does not run yet."""

    code: Literal["fetching_inputs", "workers_busy", "no_such_worker"]
    message: str


class WebhookOfJob(TypedDict):
    """The webhook of a new job or sweep."""

    id: str
    url: str
    events: list[str]
    job_id: str | None
    """The one job that it is told of; null: it is told of all, or of a sweep."""

    sweep_id: str | None
    """The one sweep that it is told of."""

    created_at: str
    disabled_at: str | None
    disabled_reason: str | None
    secret: str | None
    """The secret that signs messages, by Standard Webhooks; it is not shown again, and null where the answer is repeated under an `Idempotency-Key`."""

    links: dict[str, str]
    """Paths of the webhook and of what it was told."""

    active: bool
    """Whether the webhook is switched on; one that fails for long is switched off."""


class Webhook(TypedDict):
    """A webhook."""

    id: str
    url: str
    events: list[str]
    job_id: str | None
    """The one job that it is told of; null: it is told of all, or of a sweep."""

    sweep_id: str | None
    """The one sweep that it is told of."""

    created_at: str
    disabled_at: str | None
    disabled_reason: str | None
    links: dict[str, str]
    """Paths of the webhook and of what it was told."""

    active: bool
    """Whether the webhook is switched on; one that fails for long is switched off."""


class WebhookWithSecret(TypedDict):
    """A webhook as it is shown once, when it is made."""

    id: str
    url: str
    events: list[str]
    job_id: str | None
    """The one job that it is told of; null: it is told of all, or of a sweep."""

    sweep_id: str | None
    """The one sweep that it is told of."""

    created_at: str
    disabled_at: str | None
    disabled_reason: str | None
    secret: str
    """The secret that signs messages, by Standard Webhooks; it is not shown again."""

    links: dict[str, str]
    """Paths of the webhook and of what it was told."""

    active: bool
    """Whether the webhook is switched on; one that fails for long is switched off."""


class CreatedKey(TypedDict):
    """A new key, and the only time that it is shown."""

    id: str
    tenant: str
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """When it was last used, to the minute."""

    addresses: list[str] | None
    """The networks that it may be shown from; null is any."""

    key: str


class Headline(TypedDict):
    """
    What a job has achieved; figures that its method does not make are null.

    `before` is the uploaded network, `dense` the one that the job made robust first, where it did,
    and `after` the compressed one. A worker of a newer version may add figures, which are shown as
    they are.
    """

    clean_accuracy_before: NotRequired[float | None]
    """Share of the evaluated images that are classified right."""

    clean_accuracy_dense: NotRequired[float | None]
    """Share of the evaluated images that are classified right."""

    clean_accuracy_after: NotRequired[float | None]
    """Share of the evaluated images that are classified right."""

    fgsm_accuracy_before: NotRequired[float | None]
    """Share of the evaluated images that stay right under FGSM."""

    fgsm_accuracy_dense: NotRequired[float | None]
    """Share of the evaluated images that stay right under FGSM."""

    fgsm_accuracy_after: NotRequired[float | None]
    """Share of the evaluated images that stay right under FGSM."""

    pgd_accuracy_before: NotRequired[float | None]
    """Share of the evaluated images that stay right under PGD."""

    pgd_accuracy_dense: NotRequired[float | None]
    """Share of the evaluated images that stay right under PGD."""

    pgd_accuracy_after: NotRequired[float | None]
    """Share of the evaluated images that stay right under PGD."""

    robust_accuracy_before: NotRequired[float | None]
    """Share of the evaluated images that stay right under every attack."""

    robust_accuracy_dense: NotRequired[float | None]
    """Share of the evaluated images that stay right under every attack."""

    robust_accuracy_after: NotRequired[float | None]
    """Share of the evaluated images that stay right under every attack."""

    proven_accuracy_before: NotRequired[float | None]
    """Share of the evaluated images of which no point within the radius is misclassified, as bounds prove."""

    proven_accuracy_dense: NotRequired[float | None]
    """Share of the evaluated images of which no point within the radius is misclassified, as bounds prove."""

    proven_accuracy_after: NotRequired[float | None]
    """Share of the evaluated images of which no point within the radius is misclassified, as bounds prove."""

    intervals_after: NotRequired[dict[str, Interval] | None]
    """Of the compressed network: `clean`, `robust` (right under every attack) and each attack by its name, with the ends of their 95 % intervals."""

    k: NotRequired[int | None]
    """The most non-zeros that the network may have."""

    nonzeros: NotRequired[int | None]
    """Non-zeros of the compressed weights."""

    nonzeros_u: NotRequired[int | None]
    """Non-zeros in the factor U."""

    nonzeros_v: NotRequired[int | None]
    """Non-zeros in the factor V."""

    nonzeros_c: NotRequired[int | None]
    """Non-zeros in the correction C."""

    bits: NotRequired[int | None]
    """Bits a non-zero."""

    max_distinct_values: NotRequired[int | None]
    """The most different values that a tensor has."""

    dense_bytes: NotRequired[int | None]
    """Bytes of the dense float32 state dict."""

    file_bytes: NotRequired[int | None]
    """Bytes of the compressed file."""

    file_ratio: NotRequired[float | None]
    """`file_bytes` over `dense_bytes`."""

    nominal_ratio: NotRequired[float | None]
    """Bits of the non-zeros over bits of the dense weights."""

    latency_before_s: NotRequired[float | None]
    """Median seconds of one image, on one thread of the worker, for the uploaded network in onnxruntime."""

    latency_after_s: NotRequired[float | None]
    """Median seconds of one image, on one thread of the worker, for `model.onnx` in onnxruntime."""

    latency_c_s: NotRequired[float | None]
    """Median seconds of one image, on one thread of the worker, for `model.c`."""

    multiply_adds_before: NotRequired[int | None]
    """Multiply-adds of one image for the uploaded network."""

    multiply_adds_after: NotRequired[int | None]
    """Multiply-adds of one image for the compressed network, zeros included."""

    multiply_adds_nonzero: NotRequired[int | None]
    """Multiply-adds of one image for the compressed network with weights that are not zero."""

    seconds: NotRequired[float | None]
    """Seconds of computing."""

    accepted: NotRequired[bool | None]
    """Whether all thresholds of `accept` are met; null if it names none."""


class Key(TypedDict):
    """A key as it is kept: everything but the key itself."""

    id: str
    tenant: str
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """When it was last used, to the minute."""

    addresses: list[str] | None
    """The networks that it may be shown from; null is any."""


class Results(TypedDict):
    """Where a job's files are put, and what has come of it."""

    uri: str
    """The folder of this job's files."""

    connection: str
    state: Literal["waiting", "delivered", "failed"]
    tries: int
    error: TransferError | None
    """Why the last try failed."""

    files: list[str]
    delivered_at: str | None


class Source(TypedDict):
    """Where a file came from, or comes from."""

    uri: str
    connection: str
    etag: str | None
    """That of the object as it was named; null for a folder."""

    version: str | None
    total_bytes: int | None
    """Null where nobody tells before it has come."""

    fetched_bytes: int
    tries: int
    """Tries that have failed."""

    error: TransferError | None
    """Of the last of these."""


class Tenant(TypedDict):
    """A team, and the terms that hold for it."""

    name: str
    created_at: str
    erase_requested_at: str | None
    """Since when it is being erased; null for one that stays."""

    terms: Terms


class Trial(TypedDict):
    """A trial: an ordinary job, once it has begun."""

    index: int
    job_id: str | None
    state: TrialState
    point: dict[str, Any]
    """What sets the trial apart, by the path of the field in the spec."""

    denser: int | None
    """The trial that it may start from."""

    confirms: int | None
    """The trial whose figures this one confirms on the test split."""

    reason: str | None
    """Why it was skipped or cancelled, or why a goal tried it."""

    stage: str | None
    progress: float
    eta_s: float | None
    headline: Headline | None
    error: JobError | None
    links: dict[str, str]


class Dataset(TypedDict):
    """An uploaded data set."""

    id: str
    created_at: str
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    filename: str
    arrays: dict[str, Array]
    state: FileState
    source: Source | None
    """Where it was fetched from, if it was."""

    sha256: str | None
    """Null before it has been fetched; so are the bytes."""

    bytes: int | None
    links: dict[str, str]
    """Paths of the row itself, as `self`, and of what belongs to it."""


class Job(TypedDict):
    """A job as it is now."""

    id: str
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    state: JobState
    model_id: str
    dataset_id: str
    start_from: str | None
    """The denser job whose network it starts from."""

    spec: dict[str, Any]
    """The method's spec, as it was sent."""

    priority: int
    time_limit_s: float
    resources: Resources | None
    attempt: int
    """How often a worker has taken the job up."""

    stage: str | None
    epoch: int | None
    """Epochs of the stage that are done."""

    epochs: int | None
    progress: float
    """Share of the whole job that is done."""

    eta_s: float | None
    """Seconds to the end, from measured epochs."""

    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested_at: str | None
    waiting: Waiting | None
    """What a queued job waits for."""

    headline: Headline | None
    """The figures of a job that has succeeded."""

    acceptance: list[Threshold] | None
    """Each threshold of `accept`, met or missed, once the job has succeeded; the report says so with intervals. A job that misses one has not failed."""

    results: Results | None
    """Where its files are put, too."""

    error: JobError | None
    """Why the job has failed, if it has."""

    trace_id: str | None
    """The trace that tells where the job's time went, if the service keeps traces."""

    sweep_id: str | None
    """The sweep that the job is a trial of, if it is one."""

    links: dict[str, str]


class Model(TypedDict):
    """An uploaded network."""

    id: str
    created_at: str
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    filename: str
    format: str | None
    """The file's format by its content: `safetensors`, `torch` or `onnx`."""

    architecture: str
    normalization: Normalization | None
    dimensions: dict[str, int]
    """The sizes that the architecture leaves open, as the file has them."""

    dense_weights: int | None
    """N, the number of weights that can be compressed; a target's `k` is at most this. Null for a network uploaded to a version that did not write it down."""

    state: FileState
    source: Source | None
    """Where it was fetched from, if it was."""

    sha256: str | None
    """Null before it has been fetched; so are the bytes."""

    bytes: int | None
    links: dict[str, str]
    """Paths of the row itself, as `self`, and of what belongs to it."""


class NewJob(TypedDict):
    """A job as it is answered when it is made."""

    id: str
    name: str | None
    labels: dict[str, str]
    metadata: dict[str, Any]
    state: JobState
    model_id: str
    dataset_id: str
    start_from: str | None
    """The denser job whose network it starts from."""

    spec: dict[str, Any]
    """The method's spec, as it was sent."""

    priority: int
    time_limit_s: float
    resources: Resources | None
    attempt: int
    """How often a worker has taken the job up."""

    stage: str | None
    epoch: int | None
    """Epochs of the stage that are done."""

    epochs: int | None
    progress: float
    """Share of the whole job that is done."""

    eta_s: float | None
    """Seconds to the end, from measured epochs."""

    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested_at: str | None
    waiting: Waiting | None
    """What a queued job waits for."""

    headline: Headline | None
    """The figures of a job that has succeeded."""

    acceptance: list[Threshold] | None
    """Each threshold of `accept`, met or missed, once the job has succeeded; the report says so with intervals. A job that misses one has not failed."""

    results: Results | None
    """Where its files are put, too."""

    error: JobError | None
    """Why the job has failed, if it has."""

    trace_id: str | None
    """The trace that tells where the job's time went, if the service keeps traces."""

    sweep_id: str | None
    """The sweep that the job is a trial of, if it is one."""

    links: dict[str, str]
    webhook: NotRequired[WebhookOfJob | None]
    """Its own webhook, with its secret; only of a job that has one."""


class NewSweep(TypedDict):
    """A sweep as it is answered when it is made."""

    id: str
    name: str | None
    labels: NotRequired[dict[str, str]]
    """Each trial's labels."""

    state: SweepState
    model_id: str
    dataset_id: str
    spec: dict[str, Any]
    grid: dict[str, Any] | None
    specs: list[dict[str, Any]] | None
    goal: Goal | None
    minimise: str | None
    trial_limit: int | None
    """A goal's trials at most."""

    priority: int
    resources: Resources | None
    max_parallel: int
    time_limit_s: float | None
    trial_time_limit_s: float | None
    from_denser: bool
    counts: Counts
    progress: float
    """Share of the whole sweep that is done."""

    eta_s: float | None
    """Seconds to the end, from the trials so far."""

    seconds: float | None
    """Seconds since the first trial began to run."""

    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested_at: str | None
    front: list[int]
    """The trials on the Pareto front of robust accuracy, clean accuracy and file bytes, and latency where all have it."""

    best: int | None
    """Of a grid, the trial of the greatest robust accuracy, the smallest of these; of a goal, its answer."""

    message: str | None
    """How it ended, in words, where there is more to say."""

    links: dict[str, str]
    trials: list[Trial]
    webhook: NotRequired[WebhookOfJob | None]
    """Its own webhook, with its secret; only of a sweep that has one."""


class SweepWithTrials(TypedDict):
    """A sweep as it is now."""

    id: str
    name: str | None
    labels: NotRequired[dict[str, str]]
    """Each trial's labels."""

    state: SweepState
    model_id: str
    dataset_id: str
    spec: dict[str, Any]
    grid: dict[str, Any] | None
    specs: list[dict[str, Any]] | None
    goal: Goal | None
    minimise: str | None
    trial_limit: int | None
    """A goal's trials at most."""

    priority: int
    resources: Resources | None
    max_parallel: int
    time_limit_s: float | None
    trial_time_limit_s: float | None
    from_denser: bool
    counts: Counts
    progress: float
    """Share of the whole sweep that is done."""

    eta_s: float | None
    """Seconds to the end, from the trials so far."""

    seconds: float | None
    """Seconds since the first trial began to run."""

    created_at: str
    started_at: str | None
    finished_at: str | None
    cancel_requested_at: str | None
    front: list[int]
    """The trials on the Pareto front of robust accuracy, clean accuracy and file bytes, and latency where all have it."""

    best: int | None
    """Of a grid, the trial of the greatest robust accuracy, the smallest of these; of a goal, its answer."""

    message: str | None
    """How it ended, in words, where there is more to say."""

    links: dict[str, str]
    trials: list[Trial]
