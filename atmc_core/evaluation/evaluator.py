"""Clean and robust accuracy, image by image, and what is needed to judge them."""

import time
from typing import Any, get_args

import torch
from torch import Tensor

from atmc_core.attacks import Attack, CountingModel, ball
from atmc_core.data import Split
from atmc_core.errors import InvalidInput
from atmc_core.evaluation import probes
from atmc_core.evaluation.attacks import pgd, report_attacks
from atmc_core.evaluation.plan import (
    PROBE_EFFORT,
    Step,
    curve_epsilons,
    curve_positions,
    evaluation_steps,
    probe_positions,
    shown_positions,
)
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.randomness import random_generator
from atmc_spec import AUTOATTACK, AttackName, Evaluation, Threat

State = dict[str, Any]

#: Places of random numbers, after the seed; an attack draws by its place among the known ones.
_ATTACK, _CURVE, _PROBE = range(3)
_PLACES: tuple[AttackName, ...] = get_args(AttackName)


class Evaluator:
    """Evaluates a classifier, one step at a time (see ``evaluation_plan``).

    What it finds is its ``state``, tensors over the images and plain values:

    - ``clean``: ``right`` bool ``[N]`` and ``predicted`` int64 ``[N]``;
    - ``attacks``, by name: ``right`` (before and under attack) and ``predicted``, as above;
      ``size`` float32 ``[N]``, the perturbation in the threat's norm, NaN where the image was
      not attacked: wrong to begin with, or fallen to an earlier member of AutoAttack (then it is
      not ``right`` here either); ``seconds``, ``forward`` and ``backward``, image passes;
      ``settings``, ``within_threat`` and ``ensemble`` as in ``ReportAttack``;
    - ``curve``: ``epsilons`` and ``correct``, and which images still stand;
    - ``probe``: see ``probes``;
    - ``shown``: the adversarial twins of some images, and how they were found.
    """

    def __init__(
        self,
        classifier: Classifier,
        split: Split,
        threat: Threat,
        evaluation: Evaluation,
        num_classes: int,
        seed: int,
    ) -> None:
        self.num_classes = num_classes
        self.model = frozen_model(classifier.eval())
        self.split, self.threat, self.evaluation, self.seed = split, threat, evaluation, seed
        self.attacks = report_attacks(threat, evaluation, num_classes)
        self.ball = ball(threat.norm, threat.epsilon)
        pixels = split.images[0].numel()
        attacks = self.attacks.values()
        self.steps = evaluation_steps(evaluation, threat, attacks, len(split), pixels)
        self.epsilons = curve_epsilons(threat, pixels)
        self.curve_positions = curve_positions(split.labels, evaluation, seed)
        self.probe_positions = probe_positions(split.labels, seed)
        self.shown_positions = shown_positions(split.labels)
        self._state = self._blank()

    def _blank(self) -> State:
        n, shown = len(self.split), len(self.shown_positions)

        def outcome() -> State:
            return {
                "right": torch.zeros(n, dtype=torch.bool),
                "predicted": torch.full((n,), -1),
            }

        return {
            "clean": outcome(),
            "attacks": {
                name: outcome()
                | {"size": torch.full((n,), torch.nan), "seconds": 0.0, "forward": 0, "backward": 0}
                | {
                    "settings": dict(attack.settings),
                    "within_threat": attack.within_threat,
                    "ensemble": attack.ensemble,
                }
                for name, attack in self.attacks.items()
            },
            "curve": {"epsilons": [], "correct": [], "standing": []},
            "probe": {},
            "shown": {
                "images": torch.zeros(shown, *self.split.images.shape[1:]),
                "attack": [""] * shown,
                "predicted": [-1] * shown,
                "fooled": [False] * shown,
            },
        }

    def state(self) -> State:
        return self._state

    def restore(self, state: State) -> None:
        self._state = state

    def step(self, index: int) -> dict[str, float]:
        """Do step ``index``; returns figures worth showing.

        Raises:
            InvalidInput: ``non_finite_outputs`` if the model returns NaN or infinity.
        """
        step = self.steps[index]
        match step.kind:
            case "clean":
                return self._clean(step)
            case "attack":
                return self._attack(step)
            case "curve":
                return self._curve_point(step)
            case "probe":
                return self._probe()

    def _clean(self, step: Step) -> dict[str, float]:
        positions = self._batch(step)
        images, labels = self.split.batch(positions)
        with torch.no_grad():
            logits = self.model(images)
        finite = torch.isfinite(logits).flatten(1).all(1).cpu()
        if not finite.all():
            count = int((~finite).sum())
            raise InvalidInput(
                "non_finite_outputs",
                f"the model returns NaN or infinite outputs for {count} of {len(finite)} test "
                "images: check its weights and its normalization",
                "model",
            )
        predicted = logits.argmax(1)
        clean = self._state["clean"]
        clean["predicted"][positions] = predicted.cpu()
        clean["right"][positions] = (predicted == labels).cpu()
        return {"clean_accuracy": clean["right"][positions].float().mean().item()}

    def _batch(self, step: Step) -> Tensor:
        size = self.evaluation.batch_size
        return torch.arange(len(self.split))[step.index * size : (step.index + 1) * size]

    def _attack(self, step: Step) -> dict[str, float]:
        assert step.name is not None
        positions = self._batch(step)
        standing = positions[self._standing(step.name)[positions]]
        place = (_ATTACK, _PLACES.index(step.name), step.index)
        if len(standing):
            self._run_attack(step.name, standing, place)
        right = self._state["attacks"][step.name]["right"][positions]
        return {f"{step.name}_accuracy": right.float().mean().item()}

    def _standing(self, name: AttackName) -> Tensor:
        """What this attack is run on, bool ``[N]``."""
        standing: Tensor = self._state["clean"]["right"]
        if self.attacks[name].ensemble and name != AUTOATTACK[0]:
            standing = self._state["attacks"][AUTOATTACK[AUTOATTACK.index(name) - 1]]["right"]
        return standing

    def _run_attack(self, name: AttackName, positions: Tensor, place: tuple[int, ...]) -> None:
        images, labels = self.split.batch(positions)
        model = CountingModel(self.model)
        generator = random_generator(labels.device, self.seed, *place)
        began = time.monotonic()
        twins = self.attacks[name].attack.run(model, images, labels, generator=generator)
        predicted = self._predict(twins)
        found = self._state["attacks"][name]
        found["seconds"] += time.monotonic() - began
        found["forward"] += model.forward_images
        found["backward"] += model.backward_images
        size = self.ball.size(twins - images).cpu()
        fooled = (predicted != labels).cpu()
        if self.attacks[name].within_threat:
            # Whatever an attack claims: what lies outside the ball has not fooled within it.
            fooled &= size <= self.ball.epsilon * (1 + 1e-4) + 1e-6
            self._show(name, positions, twins.cpu(), predicted.cpu(), fooled)
        found["right"][positions] = ~fooled
        found["predicted"][positions] = predicted.cpu()
        found["size"][positions] = size

    @torch.no_grad()
    def _predict(self, images: Tensor) -> Tensor:
        return self.model(images).argmax(1)

    def _show(
        self, name: str, positions: Tensor, twins: Tensor, predicted: Tensor, fooled: Tensor
    ) -> None:
        """Keep the twins of the shown images: the first that fools, else the first tried."""
        shown = self._state["shown"]
        for place, position in enumerate(self.shown_positions):
            here = (positions == position).nonzero()[:, 0]
            if not len(here):
                continue
            at = int(here)
            if not shown["attack"][place] or (fooled[at] and not shown["fooled"][place]):
                shown["images"][place] = twins[at]
                shown["attack"][place] = name
                shown["predicted"][place] = int(predicted[at])
                shown["fooled"][place] = bool(fooled[at])

    def _curve_point(self, step: Step) -> dict[str, float]:
        """Accuracy within one radius, of the images that stand within the smaller ones.

        A ball holds the smaller ones, so what fell there has fallen here. Once at chance, and with
        points enough, the curve is complete and the rest of its steps do nothing.
        """
        curve, epsilon = self._state["curve"], self.epsilons[step.index]
        if step.index == 0:
            curve["standing"] = self._state["clean"]["right"][self.curve_positions].tolist()
        elif self._at_chance(curve) and len(curve["correct"]) >= 7:
            return {}
        else:
            standing = torch.tensor(curve["standing"]).nonzero()[:, 0]
            attack = pgd(ball(self.threat.norm, epsilon), self.evaluation.curve_steps)
            fallen = standing[self._fooled(attack, self.curve_positions[standing], step)]
            for place in fallen.tolist():
                curve["standing"][place] = False
        curve["epsilons"].append(epsilon)
        curve["correct"].append(sum(curve["standing"]))
        return {"epsilon": epsilon, "curve_accuracy": curve["correct"][-1] / len(curve["standing"])}

    def _at_chance(self, curve: State) -> bool:
        correct, count = curve["correct"][-1], len(curve["standing"])
        return bool(correct <= count / self.num_classes)

    def _fooled(self, attack: Attack, positions: Tensor, step: Step) -> Tensor:
        """Which of these images the attack fools, bool on the CPU, in batches of the usual size."""
        fooled = [torch.zeros(0, dtype=torch.bool)]
        kind = _CURVE if step.kind == "curve" else _PROBE
        generator = random_generator(self.split.labels.device, self.seed, kind, step.index)
        for part in torch.split(positions, self.evaluation.batch_size):
            images, labels = self.split.batch(part)
            if len(part):
                twins = attack.run(self.model, images, labels, generator=generator)
                fooled.append((self._predict(twins) != labels).cpu())
        return torch.cat(fooled)

    def _probe(self) -> dict[str, float]:
        step = self.steps[-1]
        positions = self.probe_positions
        images, labels = self.split.batch(positions)
        right = self._state["clean"]["right"][positions]
        probe = probes.probe(self.model, images, labels, right)
        standing = positions[worst_case(self._state)[positions]]
        stronger = pgd(self.ball, PROBE_EFFORT * self.evaluation.pgd_steps)
        fallen = int(self._fooled(stronger, standing, step).sum())
        probe["effort"] = {
            "steps": stronger.steps,
            "images": len(positions),
            "standing": len(standing),
            "fallen": fallen,
        }
        self._state["probe"] = probe
        return {"probe_fallen": float(fallen)}


def worst_case(state: State) -> Tensor:
    """Right when clean and under every attack that keeps to the threat's ball, bool ``[N]``."""
    attacks = state["attacks"].values()
    rights = [found["right"] for found in attacks if found["within_threat"]]
    return torch.stack([state["clean"]["right"], *rights]).all(0)
