"""A goal's trials: their specs, what their figures say of the floor, and how it is told."""

import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tuning.grid import Spec, size_of
from tuning.search import Found, Search, Tried, Try, next_trial

WORST = "worst"
"""The name of the worst case of all attacks, as a goal has it."""

SPLIT = "evaluation.split"
VALIDATION, TEST = "validation", "test"

DEFAULT_TRIALS = 8

# Validation accuracy in training is that under PGD, or the clean one: no network stands better
# under these than it does there.
_BOUNDED_BY_TRAINING = frozenset(
    {WORST, "pgd", "pgd_smooth", "pgd_cw", "pgd_dlr", "autoattack", "apgd_ce", "apgd_t"}
)
# The stages, from which share of their epochs on, and how far below the floor the upper end of the
# interval has to be there. A network gains while it finishes.
_LATE: Mapping[str, tuple[float, float]] = {"compressing": (0.9, 0.1), "finishing": (0.5, 0.02)}
_Z = 1.959963984540054


@dataclass(frozen=True)
class Done:
    """A trial that has ended: its spec, and its figures if it has succeeded."""

    index: int
    spec: Spec
    headline: Mapping[str, Any] | None
    confirms: int | None = None


@dataclass(frozen=True)
class Goal:
    """What a sweep looks for: a floor under an attack, from a base spec, in so many trials."""

    floor: float
    attack: str
    base: Spec
    limit: int

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Goal | None":
        """Read what the sweep's user asked for; None if it is no goal."""
        goal = asked.get("goal")
        if goal is None:
            return None
        return cls(goal["robust_accuracy"], goal["attack"], asked["spec"], asked["trial_limit"])

    @property
    def search(self) -> Search:
        """What is to be searched: what the base spec gives is fixed."""
        bits = (self.base.get("target") or {}).get("bits")
        return Search(self.floor, self.limit, size_of(self.base) is not None, bits)

    def spec_of(self, chosen: Try) -> tuple[Spec, dict[str, Any]]:
        """Return the spec of a trial, on validation images, and its point."""
        point: dict[str, Any] = {"target.bits": chosen.bits}
        if chosen.density is not None:
            point = {"target.density": chosen.density} | point
        spec = deepcopy(self.base)
        target = spec.setdefault("target", {})
        target.update({path.removeprefix("target."): value for path, value in point.items()})
        spec.setdefault("evaluation", {})["split"] = VALIDATION
        return spec, point

    def decide(self, done: Iterable[Done]) -> Try | Found:
        """Return the next trial, or what was found; without those that confirm."""
        return next_trial(self.search, self._tried(done))

    def best(self, done: Iterable[Done]) -> int | None:
        """Return the answer so far: the confirming trial once it has succeeded."""
        done = list(done)
        for trial in done:
            if trial.confirms is not None and trial.headline is not None:
                return trial.index
        found = next_trial(Search(self.floor, 0), self._tried(done))
        return found.best if isinstance(found, Found) else None

    def share(self, headline: Mapping[str, Any] | None) -> Mapping[str, float] | None:
        """Return the accuracy under the goal's attack with its interval, if there is one."""
        shares = (headline or {}).get("intervals_after") or {}
        found: Mapping[str, float] | None = shares.get(
            "robust" if self.attack == WORST else self.attack
        )
        return found

    def _tried(self, done: Iterable[Done]) -> list[Tried]:
        return [self._one(trial) for trial in done if trial.confirms is None]

    def _one(self, trial: Done) -> Tried:
        size, share = size_of(trial.spec), self.share(trial.headline)
        return Tried(
            index=trial.index,
            density=size[1] if size and size[0] == "density" else None,
            bits=trial.spec["target"]["bits"],
            low=share["low"] if share else None,
            bytes=(trial.headline or {}).get("file_bytes"),
        )

    def why_hopeless(
        self, stage: str | None, epoch: int, epochs: int, accuracy: float, images: int
    ) -> str | None:
        """Return why a trial at work cannot hold the floor any more; None if it may.

        `accuracy` is its validation accuracy on so many images after an epoch of a stage.
        """
        trained_for_proof = (self.base.get("training") or {}).get("loss") == "ibp"
        if (
            stage is None
            or stage not in _LATE
            or self.attack not in _BOUNDED_BY_TRAINING
            or trained_for_proof
        ):
            return None
        share, margin = _LATE[stage]
        upper = _upper(accuracy, images)
        if epoch < share * epochs or upper + margin >= self.floor:
            return None
        return (
            f"Hopeless: {accuracy:.3f} of {images} validation images are right after epoch {epoch} "
            f"of {epochs} of {stage}, at most {upper:.3f}, and {self.floor:g} is the floor."
        )

    def conclusion(self, done: Iterable[Done]) -> str:
        """Return in words what was found, once nothing more is to be tried."""
        done = list(done)
        searched = [trial for trial in done if trial.confirms is None]
        found = next_trial(Search(self.floor, 0), self._tried(done))
        assert isinstance(found, Found)
        floor = f"{self.floor:g} under {self.attack}"
        if found.best is None:
            return f"No trial of {len(searched)} has figures to hold {floor} against."
        best = next(trial for trial in searched if trial.index == found.best)
        said = f"on validation images {self._words(best)}"
        if not found.holds:
            return (
                f"The floor of {floor} cannot be held by what {len(searched)} trials tried: trial "
                f"{best.index} comes nearest, {said}."
            )
        size = f"{best.headline['file_bytes']:,} bytes" if best.headline else ""
        said = f"Trial {best.index} is the smallest that holds {floor}: {size}, {said}."
        confirming = next((trial for trial in done if trial.confirms == best.index), None)
        share = self.share(confirming.headline) if confirming else None
        if confirming is None or share is None:
            return f"{said} It was not confirmed on the test split."
        held = "the floor holds there" if share["low"] >= self.floor else "below the floor"
        return f"{said} On the test split {self._words(confirming)}: {held}."

    def _words(self, trial: Done) -> str:
        share = self.share(trial.headline)
        if share is None:
            return "without figures"
        return f"{share['accuracy']:.3f} ({share['low']:.3f} to {share['high']:.3f})"


def _upper(share: float, images: int) -> float:
    """Return the upper end of Wilson's 95 % interval of a share."""
    z2 = _Z * _Z
    centre = (share + z2 / (2 * images)) / (1 + z2 / images)
    spread = math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    return centre + _Z * spread / (1 + z2 / images)
