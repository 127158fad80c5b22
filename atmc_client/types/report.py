# Written from the report's schema by `make generate`.
"""The report that a job makes, field by field. A newer service may add fields."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Normalization(TypedDict):
    mean: list[float]
    std: list[float]


class Start(TypedDict):
    """the denser network that compression started from, where it did"""

    job_id: str | None
    sha256: str
    k: int
    nonzeros: int
    bits: int


class ReusedItem(TypedDict):
    stage: str
    job_id: str
    seconds: float


class Evaluation(TypedDict):
    level: Literal["quick", "standard", "full"]
    split: Literal["test", "validation"]
    seed: int
    norm: Literal["linf", "l2"]
    epsilon: float
    attacks: list[
        Literal[
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
    pgd_steps: int
    pgd_restarts: int
    curve_steps: int
    curve_images: int
    probe_images: int
    confidence: float
    data_sha256: str
    """of the evaluated images and labels"""

    indices: list[int]
    """the evaluated images in the split"""


class Upload(TypedDict):
    """validation accuracies of the upload, by which robust training is skipped; null where the job did not ask"""

    images: int
    clean_accuracy: float
    robust_accuracy: float
    robust_accuracy_at_twice: float
    robust: bool


class Training(TypedDict):
    """the values that training used: given, by default, or chosen by the job"""

    preset: Literal["fast", "standard", "paper", "auto"]
    robust_epochs: int
    compression_epochs: int
    finish_epochs: int
    step_size: NotRequired[float]
    seconds_per_epoch: NotRequired[float | None]
    """as measured before training, where there is a time budget"""

    upload: Upload | None
    """validation accuracies of the upload, by which robust training is skipped; null where the job did not ask"""


class LatencyItem(TypedDict):
    network: Literal["before", "after", "int8", "c"]
    batch: int
    threads: int
    median_s: float
    p95_s: float
    runs: int


class MultiplyAdds(TypedDict):
    """of convolutions and linear layers, for one image"""

    before: int
    after: int | None
    nonzero: int | None


class PeakMemoryBytes(TypedDict):
    """of a fresh process that runs a batch of 32 on one thread"""

    before: NotRequired[int | None]
    after: NotRequired[int | None]
    int8: NotRequired[int | None]


class Speed(TypedDict):
    """measured where the job ran, all networks in turns: in onnxruntime, and model.c on one core; null where the spec leaves it out"""

    threads: int
    """all that the job may use"""

    latency: list[LatencyItem]
    multiply_adds: MultiplyAdds
    """of convolutions and linear layers, for one image"""

    peak_memory_bytes: PeakMemoryBytes
    """of a fresh process that runs a batch of 32 on one thread"""

    not_measured: dict[str, str]
    """why a network was not timed, by its name"""

    note: str


class File(TypedDict):
    name: str
    bytes: int
    sha256: str


class Images(TypedDict):
    """images in each split, before any choice"""

    train: int
    val: int
    test: int


class Note(TypedDict):
    code: str
    message: str


class Inputs(TypedDict):
    """the names of the classes, by label, where the data set has them, and what was changed or cut on the way in: a split that was not there, a softmax that was dropped"""

    class_names: list[str]
    notes: list[Note]


class Perturbation(TypedDict):
    """over the changed images, in the threat's norm; null if there are none"""

    mean: float | None
    largest: float | None
    mean_255: float | None
    largest_255: float | None


class Attack(TypedDict):
    name: Literal[
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
    norm: Literal["linf", "l2"]
    settings: dict[str, float]
    within_threat: bool
    """keeps to the threat's norm and epsilon, and counts for robust"""

    member: bool
    """one of AutoAttack's four: its accuracy is that after it and the ones before it, and it attacked only what these had left"""

    epsilon: float | None
    attacked: int
    changed: int
    perturbation: Perturbation
    """over the changed images, in the threat's norm; null if there are none"""

    seconds: float
    forward_passes: int
    """images passed through the model"""

    backward_passes: int
    """images passed through the model"""

    accuracy: float
    low: float
    high: float
    correct: int
    count: int


class Check(TypedDict):
    side: Literal["before", "dense", "after", "data"]
    code: str
    status: Literal["raised", "passed", "not_run"]
    message: str
    figures: dict[str, Any]


class Difference(TypedDict):
    """with Newcombe's paired 95 % interval"""

    value: float
    low: float
    high: float
    both: int
    only_before: int
    only_after: int
    neither: int
    mcnemar_exact_p: float
    mcnemar_mid_p: float


class Before(TypedDict):
    predicted: int
    attack: NotRequired[
        Literal[
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
    fooled: NotRequired[bool]
    attacked_predicted: NotRequired[int]
    attacked_image: NotRequired[str]


class Dense(TypedDict):
    predicted: int
    attack: NotRequired[
        Literal[
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
    fooled: NotRequired[bool]
    attacked_predicted: NotRequired[int]
    attacked_image: NotRequired[str]


class After(TypedDict):
    predicted: int
    attack: NotRequired[
        Literal[
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
    fooled: NotRequired[bool]
    attacked_predicted: NotRequired[int]
    attacked_image: NotRequired[str]


class Example(TypedDict):
    index: int
    label: int
    image: str
    before: Before
    dense: NotRequired[Dense]
    after: NotRequired[After]


class IntervalsAfter(TypedDict):
    accuracy: float
    low: float
    high: float


class Headline(TypedDict):
    clean_accuracy_before: float | None
    fgsm_accuracy_before: float | None
    pgd_accuracy_before: float | None
    robust_accuracy_before: float | None
    proven_accuracy_before: float | None
    seconds: float
    accepted: bool | None
    latency_before_s: float | None
    """median of one image on one thread"""

    multiply_adds_before: int | None
    clean_accuracy_dense: NotRequired[float | None]
    fgsm_accuracy_dense: NotRequired[float | None]
    pgd_accuracy_dense: NotRequired[float | None]
    robust_accuracy_dense: NotRequired[float | None]
    proven_accuracy_dense: NotRequired[float | None]
    clean_accuracy_after: NotRequired[float | None]
    fgsm_accuracy_after: NotRequired[float | None]
    pgd_accuracy_after: NotRequired[float | None]
    robust_accuracy_after: NotRequired[float | None]
    proven_accuracy_after: NotRequired[float | None]
    latency_after_s: NotRequired[float | None]
    """median of one image on one thread"""

    latency_c_s: NotRequired[float | None]
    """median of one image on one thread"""

    multiply_adds_after: NotRequired[int | None]
    multiply_adds_nonzero: NotRequired[int | None]
    intervals_after: NotRequired[dict[str, IntervalsAfter]]
    """clean, robust (right under every attack) and each attack by its name, with 95 % intervals"""

    k: NotRequired[int]
    nonzeros: NotRequired[int]
    nonzeros_u: NotRequired[int]
    nonzeros_v: NotRequired[int]
    nonzeros_c: NotRequired[int]
    bits: NotRequired[int]
    max_distinct_values: NotRequired[int]
    dense_bytes: NotRequired[int]
    file_bytes: NotRequired[int]
    file_ratio: NotRequired[float]
    nominal_ratio: NotRequired[float]


class Nonzeros(TypedDict):
    u: int
    v: int
    c: int


class DistinctValues(TypedDict):
    u: int
    v: int
    c: int


class Layer(TypedDict):
    weight: str
    shape: list[int]
    groups: int
    weights: int
    nonzeros: Nonzeros
    distinct_values: DistinctValues


class Point(TypedDict):
    epsilon: float
    epsilon_255: float
    accuracy: float
    low: float
    high: float
    correct: int
    count: int


Bounds = TypedDict(
    "Bounds",
    {
        "ibp": int,
        "crown-ibp": int,
        "crown": int,
        "alpha-crown": int,
    },
)


class Share(TypedDict):
    accuracy: float
    low: float
    high: float
    correct: int
    count: int


PerClassItem = TypedDict(
    "PerClassItem",
    {
        "class": str,
        "clean": Share,
        "robust": Share,
    },
)


class Threshold(TypedDict):
    name: str
    bound: Literal["at_least", "at_most"]
    limit: float
    figure: float
    low: float
    high: float
    passed: bool
    decided: bool
    """whether the whole interval lies on the verdict's side"""


class Acceptance(TypedDict):
    accepted: bool | None
    """null without thresholds"""

    thresholds: list[Threshold]


class Figures(TypedDict):
    """on the same images for both networks: transferred are those that PGD made against the float network, so robust is an upper bound; fallen are the images on which the float network stands and this one does not; null if there is no such network"""

    clean: Share
    transferred: Share
    square: Share
    robust: Share
    float_clean: Share
    float_robust: Share
    fallen: int
    square_queries: int
    bytes: int


class Int8(TypedDict):
    """of model.int8.onnx; null if the spec does not ask for it"""

    offered: bool
    reason: str
    """why it is not offered; empty if it is"""

    limit: float
    """of what it may lose"""

    figures: Figures | None
    """on the same images for both networks: transferred are those that PGD made against the float network, so robust is an upper bound; fallen are the images on which the float network stands and this one does not; null if there is no such network"""


class Proven(TypedDict):
    method: Literal["none", "ibp", "crown"]
    reason: str
    """why nothing can be proven; empty if it can"""

    share: Share | None
    """of the evaluated images: no point of their balls is misclassified"""

    bounds: Bounds
    """the images that each bound proved, in the order of trying"""

    tried: int
    """images that stood under every attack"""

    seconds: float
    curve: list[Point]


class Side(TypedDict):
    process: Literal["job", "fresh"]
    """fresh: decoded from its file and evaluated in a new process"""

    sha256: str
    """of the model's file"""

    clean: Share
    robust: Share
    attacks: list[Attack]
    per_class: list[PerClassItem]
    curve: list[Point]
    proven: Proven | None
    """null if nothing was to be proven"""


class Report(TypedDict):
    """Clean and robust accuracy of an uploaded classifier, of the dense network that the job made robust first, where it did, and of the compressed form, on the same images. Accuracies are shares of the evaluated images with 95 % Wilson intervals (low, high); epsilon is for images in [0, 1]."""

    version: Literal[2]
    method: str
    architecture: str
    num_classes: int
    normalization: Normalization
    start: NotRequired[Start]
    """the denser network that compression started from, where it did"""

    reused: NotRequired[list[ReusedItem]]
    """stages that another job had done, and the seconds that they took there, which are not in the headline's"""

    headline: Headline
    acceptance: Acceptance
    before: Side
    dense: NotRequired[Side]
    after: NotRequired[Side]
    difference: NotRequired[dict[str, Difference]]
    """after minus before: clean, for each attack, and the worst case"""

    difference_from_dense: NotRequired[dict[str, Difference]]
    """after minus dense: what compression cost: clean, for each attack, and the worst case"""

    warnings: list[Check]
    """the checks raised"""

    checks: list[Check]
    evaluation: Evaluation
    examples: list[Example]
    layers: NotRequired[list[Layer]]
    training: NotRequired[Training]
    """the values that training used: given, by default, or chosen by the job"""

    speed: Speed | None
    """measured where the job ran, all networks in turns: in onnxruntime, and model.c on one core; null where the spec leaves it out"""

    int8: Int8 | None
    """of model.int8.onnx; null if the spec does not ask for it"""

    files: NotRequired[list[File]]
    """the artifact and its exports; empty if nothing was compressed"""

    images: Images
    """images in each split, before any choice"""

    inputs: Inputs
    """the names of the classes, by label, where the data set has them, and what was changed or cut on the way in: a split that was not there, a softmax that was dropped"""

    spec: dict[str, Any]
    """the job's spec, defaults filled in"""

    environment: dict[str, Any]
    """device, threads and versions"""
