"""Whole jobs meet the options of training and target exactly, report them, and can be resumed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from atmc_core import artifact
from atmc_core.data import feed
from atmc_core.errors import InvalidInput
from atmc_core.job.run import run
from atmc_core.networks.upload import ModelInput
from atmc_reader.values import grid_exponent
from atmc_spec import read_spec

Events = list[dict[str, Any]]

SPEC: dict[str, Any] = {
    "method": "al0",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1, "steps": 2},
    "training": {
        "robust_epochs": 1,
        "compression_epochs": 3,
        "finish_epochs": 1,
        "learning_rate": 0.02,
        # Three steps an epoch.
        "batch_size": 160,
    },
    "evaluation": {
        "speed": False,
        "attacks": ["fgsm"],
        "max_images": 40,
        "curve_images": 5,
        "curve_steps": 1,
    },
}


class Killed(Exception):
    """Stands for the end of the process at this very event."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """Runs jobs on a few real digits."""

    model: ModelInput
    data: Path
    folder: Path

    def run(
        self,
        name: str = "job",
        until: Callable[[dict[str, Any]], bool] = lambda event: False,
        **changes: dict[str, Any] | str,
    ) -> tuple[dict[str, Any], Events]:
        """The report and the events of a job whose spec is ``SPEC`` with ``changes``."""
        events: Events = []

        def emit(event: dict[str, Any]) -> None:
            events.append(event)
            if until(event):
                raise Killed

        spec = read_spec(SPEC | changes)
        folder = self.folder / name
        run(spec, self.model, self.data, folder, device=torch.device("cpu"), emit=emit)
        return json.loads((folder / "results" / "report.json").read_text()), events

    def artifact(self, name: str = "job") -> bytes:
        """The file that a job made."""
        return (self.folder / name / "results" / "model.atmc").read_bytes()


@pytest.fixture
def bench(digits_model: ModelInput, small_digits_path: Path, tmp_path: Path) -> Bench:
    return Bench(digits_model, small_digits_path, tmp_path)


def _training(**changes: Any) -> dict[str, Any]:
    return SPEC["training"] | changes


@pytest.mark.parametrize(
    ("method", "bits", "limit", "least"),
    [("nap", 1, 2_000, 1_900), ("al0", 3, 4_000, 3_850), ("alr", 8, 9_000, 7_000)],
)
def test_a_file_is_at_most_as_large_as_asked(
    method: str, bits: int, limit: int, least: int, bench: Bench
) -> None:
    report, _ = bench.run(method=method, target={"max_bytes": limit, "bits": bits})
    assert least < report["headline"]["file_bytes"] == len(bench.artifact()) <= limit
    assert report["headline"]["nonzeros"] <= report["headline"]["k"]


def test_small_tensors_are_small_in_the_file(bench: Bench) -> None:
    """Codebooks are float16, biases integers of 8 bits, and the size asked for is met with them."""
    target = {"max_bytes": 3_000, "bits": 4, "small_tensor_bits": 8}
    report, _ = bench.run(method="nap", target=target)
    assert 2_700 < report["headline"]["file_bytes"] == len(bench.artifact()) <= 3_000
    model = artifact.decode(bench.artifact())
    for own in model.factors.values():
        assert all(torch.equal(tensor, tensor.half().float()) for tensor in own.tensors)
    biases = [tensor.numpy() for name, tensor in model.others.items() if name.endswith("bias")]
    assert len(biases) == 4
    assert all(grid_exponent(bias) is not None for bias in biases)


def test_a_nominal_ratio_is_met_from_below(bench: Bench) -> None:
    report, _ = bench.run(method="atmc", target={"nominal_ratio": 0.05, "bits": 16})
    assert 0.048 < report["headline"]["nominal_ratio"] <= 0.05
    assert report["headline"]["nonzeros"] <= report["headline"]["k"]


def test_a_file_that_is_too_small_is_refused_in_time(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="ask for at least") as refused:
        bench.run(target={"max_bytes": 50, "bits": 4})
    assert (refused.value.code, refused.value.param) == ("max_bytes_too_small", "target.max_bytes")
    assert not (bench.folder / "job" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ({"k": 500, "bits": 32}, "k_out_of_range"),
        ({"nominal_ratio": 0.01, "bits": 32}, "k_out_of_range"),
        ({"max_bytes": 2_500, "bits": 32}, "max_bytes_too_small"),
    ],
)
def test_low_rank_refuses_a_size_that_leaves_a_layer_nothing(
    target: dict[str, Any], code: str, bench: Bench
) -> None:
    with pytest.raises(InvalidInput, match="at least") as refused:
        bench.run(method="alr", target=target)
    assert refused.value.code == code


@pytest.mark.parametrize(("method", "bits", "limit"), [("nap", 8, 6_000), ("al0", 32, 20_000)])
def test_a_file_without_channels_is_nearly_as_large_as_asked(
    method: str, bits: int, limit: int, bench: Bench
) -> None:
    target = {"max_bytes": limit, "bits": bits, "structure": "channel"}
    report, _ = bench.run(method=method, target=target)
    assert 0.85 * limit < report["headline"]["file_bytes"] == len(bench.artifact()) <= limit
    assert _rows(bench.artifact()) < 0.75 * (16 + 32 + 64)


def _rows(content: bytes) -> int:
    """Output channels of all layers but the last, which has one a class."""
    *hidden, last = artifact.decode(content).factors.values()
    assert last.view.shape[0] == 10
    return sum(factors.view.shape[0] for factors in hidden)


def test_channels_go_where_a_density_is_asked_for(bench: Bench) -> None:
    target = {"density": 0.1, "bits": 8, "structure": "channel"}
    report, _ = bench.run(method="atmc", target=target)
    assert report["headline"]["nonzeros"] <= report["headline"]["k"] == 3_816
    assert report["headline"]["max_distinct_values"] <= 2**8
    assert _rows(bench.artifact()) < 0.75 * (16 + 32 + 64)


_CHANNELS = {"max_bytes": 6_000, "bits": 4, "structure": "channel"}
#: A job of each row of stages, and of every option that has a state of its own.
RESUMABLE: dict[str, dict[str, Any]] = {
    "al0": {
        "target": _CHANNELS,
        "threat": {"norm": "l2", "epsilon": 0.5, "steps": 2},
        "training": _training(
            finish_epochs=2,
            loss="trades",
            beta=3,
            averaging="ema",
            averaging_decay=0.9,
            schedule="step",
            density_schedule="linear",
            dual_interval=3,
            flip=True,
            shift=1,
        ),
    },
    "nap": {"target": _CHANNELS, "training": _training(finish_epochs=2, averaging="ema")},
    "ap": {"target": {"nominal_ratio": 0.05, "bits": 16}},
    "alr": {"target": {"max_bytes": 9_000, "bits": 8}, "training": _training(averaging="swa")},
    "atmc": {
        "target": {"max_bytes": 6_000, "bits": 3},
        "training": _training(loss="trades", averaging="ema", finish_epochs=2, dual_interval=2),
    },
    "da": {"target": {"density": 1, "bits": 32}, "training": {"robust_epochs": 3}},
}


@pytest.mark.parametrize(
    "method", [m if m == "al0" else pytest.param(m, marks=pytest.mark.slow) for m in RESUMABLE]
)
def test_killed_in_every_epoch_a_job_ends_with_the_same_bytes(method: str, bench: Bench) -> None:
    expected, events = bench.run("undisturbed", method=method, **RESUMABLE[method])
    places = [
        (event["stage"], event["epoch"])
        for event in events
        if event["type"] == "progress"
        and event["stage"] != "writing"
        # Of an evaluation the first point of the curve, which costs nothing.
        and (event["epoch"] == 3 or not event["stage"].startswith("evaluating"))
    ]
    assert {stage for stage, _ in places} >= {"evaluating_upload", "evaluating_artifact"}
    for place in places:

        def until(event: dict[str, Any], place: tuple[str, int] = place) -> bool:
            """Before that epoch's checkpoint: the next attempt does it again, and one more."""
            return event["type"] == "progress" and (event["stage"], event["epoch"]) == place

        with pytest.raises(Killed):
            bench.run("killed", until, method=method, **RESUMABLE[method])
    report, events = bench.run("killed", method=method, **RESUMABLE[method])
    assert [event["epoch"] for event in events if event["type"] == "resumed"] == [2]
    assert bench.artifact("killed") == bench.artifact("undisturbed")
    assert report["training"] == expected["training"]
    assert report["headline"] | {"seconds": 0} == expected["headline"] | {"seconds": 0}


def test_images_that_do_not_fit_the_device_are_streamed_to_the_same_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = _training(flip=True, shift=2, compression_epochs=1)
    gather, gathered = feed._gather, list[int]()

    def watched(images: Any, places: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
        gathered.append(len(places))
        return gather(images, places, room)

    monkeypatch.setattr(feed, "_gather", watched)
    resident, _ = bench.run("resident", training=training)
    assert gathered == []
    monkeypatch.setattr("atmc_core.data.sets.room_for_images", lambda device: 0)
    streamed, _ = bench.run("streamed", training=training)
    assert sum(gathered) > 0
    assert bench.artifact("streamed") == bench.artifact("resident")
    assert streamed["after"]["clean"] == resident["after"]["clean"]


def test_a_shift_out_of_sight_is_refused_in_time(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="out of sight") as refused:
        bench.run(training=_training(shift=8))
    assert refused.value.param == "training.shift"


def test_each_option_makes_a_difference(bench: Bench) -> None:
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "trades": {"loss": "trades"},
        "step": {"schedule": "step"},
        "ema": {"averaging": "ema"},
        "swa": {"averaging": "swa"},
        "flip": {"flip": True},
        "shift": {"shift": 1},
        "short": {"max_grad_norm": 0.1},
        "magnitude": {"importance": "magnitude"},
    }
    own = {"threat": SPEC["threat"] | {"backward": "plain"}}
    changes = {name: (option, {}) for name, option in options.items()}
    evaluation = SPEC["evaluation"] | {"max_images": 5, "curve_images": 1}
    changes |= {f"{name}, own gradients": (options[name], own) for name in ("plain", "trades")}
    results = set()
    for name, (option, threat) in changes.items():
        # Averaging needs more steps than others.
        epochs = {"robust_epochs": 0, "compression_epochs": 1, "finish_epochs": 0, "batch_size": 64}
        asked = {"training": _training(**epochs, **option), "evaluation": evaluation}
        with pytest.raises(Killed):
            bench.run(name, _at_the_artifact, **asked, **threat)
        results.add(_result(bench.folder / name))
    assert len(results) == len(changes)


def _at_the_artifact(event: dict[str, Any]) -> bool:
    return event["type"] == "stage" and event["stage"] == "evaluating_artifact"


def _has_artifact(event: dict[str, Any]) -> bool:
    return event["type"] == "progress" and event["stage"] == "evaluating_artifact"


def _result(folder: Path) -> bytes:
    """The best factors of the last stage that has a checkpoint."""
    newest = sorted((folder / "checkpoints").glob("*.pt"))[-1]
    factors = torch.load(newest, weights_only=True)["state"]["best"]["factors"]
    used = (tensor for factor in factors for tensor in factor["used"])
    return b"".join(tensor.numpy().tobytes() for tensor in used)


class TestTheUpload:
    """A robust one is recognised and kept; one that is not is made robust first."""

    def _unset(self) -> dict[str, Any]:
        training = _training(preset="fast", compression_epochs=1, batch_size=250)
        del training["robust_epochs"]
        return training

    def test_that_was_trained_on_clean_images_is_made_robust(self, bench: Bench) -> None:
        threat = {"norm": "linf", "epsilon": 0.2, "steps": 2}
        report, events = bench.run(threat=threat, training=self._unset())
        upload = report["training"]["upload"]
        assert not upload["robust"]
        assert upload["robust_accuracy"] < 0.5 < upload["clean_accuracy"]
        assert report["training"]["robust_epochs"] == 6
        assert {"type": "stage", "stage": "robust_training", "status": "finished"} in events

    def test_that_is_robust_is_kept(self, bench: Bench) -> None:
        training = _training(robust_epochs=6, batch_size=32)
        for name in ("compression_epochs", "finish_epochs"):
            del training[name]  # of no use to da
        threat = {"norm": "linf", "epsilon": 0.05, "steps": 2}
        dense = {"density": 1, "bits": 32}
        with pytest.raises(Killed):  # once the artifact is written
            bench.run(
                "da", _has_artifact, method="da", threat=threat, target=dense, training=training
            )
        network = artifact.decode(bench.artifact("da")).classifier().network
        path = bench.folder / "robust.safetensors"
        tensors = {name: t.contiguous() for name, t in network.state_dict().items()}
        safetensors.torch.save_file(tensors, path)
        robust = dataclasses.replace(bench, model=dataclasses.replace(bench.model, path=path))

        report, events = robust.run(threat=threat, training=self._unset())
        assert report["training"]["upload"]["robust"]
        assert report["training"]["robust_epochs"] == 0
        (skipped,) = [event for event in events if event.get("status") == "skipped"]
        assert skipped["stage"] == "robust_training"
        assert "is robust already and kept" in skipped["message"]
        (metric,) = [event for event in events if "upload_robust" in event]
        assert metric["upload_robust_accuracy"] == (report["training"]["upload"]["robust_accuracy"])

        def until(event: dict[str, Any]) -> bool:
            return event["type"] == "progress" and event["stage"] == "robust_training"

        with pytest.raises(Killed):  # given explicitly, there is training, and no question
            robust.run("explicit", until, threat=threat)


class TestAuto:
    """Preset auto fits the epochs to the data and the time, once."""

    def test_a_time_budget_shortens_training(self, bench: Bench) -> None:
        training = {"preset": "auto", "batch_size": 64, "finish_epochs": 1}
        report, _ = bench.run(training=training | {"time_budget_s": 2})
        used = report["training"]
        assert used["seconds_per_epoch"] > 0
        assert used["finish_epochs"] == 1
        chosen = used["robust_epochs"] + used["compression_epochs"]
        assert chosen == 2 or chosen * used["seconds_per_epoch"] <= 2
        assert used["schedule"] == "cosine"

    def test_a_choice_outlives_the_process(self, bench: Bench) -> None:
        options = {"training": {"preset": "auto", "batch_size": 64, "time_budget_s": 1}}

        def until(event: dict[str, Any]) -> bool:
            return event["type"] == "progress" and event["stage"] == "robust_training"

        with pytest.raises(Killed):
            bench.run(until=until, **options)
        checkpoint = sorted((bench.folder / "job" / "checkpoints").glob("*.pt"))[-1]
        chosen = torch.load(checkpoint, weights_only=True)["handover"]["plan"]
        report, _ = bench.run(**options)
        for name, value in chosen["effort"].items():
            assert report["training"][name] == value
        assert report["training"]["seconds_per_epoch"] == chosen["seconds_per_epoch"]

    def test_too_little_time_is_warned_of(self, bench: Bench) -> None:
        training = {"preset": "auto", "batch_size": 64, "time_budget_s": 0.001}
        report, events = bench.run(training=training)
        codes = [event["code"] for event in events if event["type"] == "warning"]
        assert codes == ["validation_split_cut", "time_budget_too_short"]
        epochs = [report["training"][f"{n}_epochs"] for n in ("robust", "compression", "finish")]
        assert epochs == [1, 1, 1]
