"""Clean and robust accuracy, image by image, and the figures that tell whether to believe them."""

import time
from typing import Any, get_args

import torch
from torch import Tensor

from atmc_core.attacks import Attack, CountingModel, ball, has_edges, is_within
from atmc_core.certification import BOUNDS
from atmc_core.data import Split
from atmc_core.evaluation import probes
from atmc_core.evaluation.attacks import (
    answers,
    pgd,
    report_attacks,
    require_finite,
    run_attack,
)
from atmc_core.evaluation.plan import (
    MIN_CURVE_POINTS,
    PROBE_EFFORT,
    PROOF_BATCH,
    Portion,
    curve_epsilons,
    curve_positions,
    evaluation_portions,
    probe_positions,
    shown_positions,
)
from atmc_core.evaluation.proofs import plan_proofs
from atmc_core.evaluation.scale import scale_exponent, scaled
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.randomness import random_generator
from atmc_spec import AUTOATTACK, AttackName, Evaluation, Threat

State = dict[str, Any]

# Each portion draws from a random stream of its own, named by the seed, by what the portion
# computes and, for an attack, by the attack's position among all known ones.
_ATTACK, _CURVE, _PROBE = range(3)
_PLACES: tuple[AttackName, ...] = get_args(AttackName)


class Evaluator:
    """Evaluates a classifier on the N images of a split, one portion at a time.

    ``portions`` lists the work (see ``evaluation_portions``). All results are in ``state()``, a
    dictionary of tensors and plain values:

    - ``edges``: whether the classifier takes maxima or rounds, so that smooth backward passes
      differ from its own;
    - ``clean``: ``right`` bool ``[N]`` and ``predicted`` int64 ``[N]``;
    - ``attacks``: for each attack, by name,

      - ``right`` bool ``[N]``, whether the image is classified correctly without and under the
        attack, and ``predicted`` int64 ``[N]``;
      - ``size`` float32 ``[N]``, the perturbation's length in the threat's norm, in pixel values.
        It is NaN where the image was not attacked because it was wrong to begin with, or had
        fallen to an earlier member of AutoAttack (in both cases ``right`` is false);
      - ``seconds``, and ``forward`` and ``backward``, the images passed through the model;
      - ``settings``, ``within_threat`` and ``ensemble`` as in ``ReportAttack``;
    - ``curve``: ``epsilons``, ``correct`` and, for each image, whether it is still ``standing``;
    - ``proof``: None if nothing was asked for; otherwise its ``method`` and ``reason`` as in
      ``ProofPlan``, ``by`` int8 ``[N]`` (the place in ``BOUNDS`` of the bound that proved the
      image, or -1), ``tried``, the images that stood under every attack, ``seconds``, and
      ``curve``: ``epsilons``, ``correct`` and, for each image, whether it is still ``proven``;
    - ``probe``: the figures of ``probes.probe``, and ``effort``; also ``logit_exponent`` if the
      attacks saw logits times that power of two (see ``scale``);
    - ``shown``: the adversarial examples of some images, and which attack found them.

    Args:
        classifier: the classifier; it is put into evaluation mode.
        split: the images to evaluate, on the classifier's device.
        threat: the ball within which the classifier should be robust.
        evaluation: which attacks are run, and with which settings.
        num_classes: the number of classes of the classifier.
        seed: seeds everything that is drawn at random.

    Raises:
        InvalidInput: as ``report_attacks``.
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
        self.unscaled = frozen_model(classifier.eval())
        self.split, self.threat, self.evaluation, self.seed = split, threat, evaluation, seed
        self.probe_positions = probe_positions(split.labels, seed)
        probed = split.batch(self.probe_positions)
        self.edges = has_edges(self.unscaled, probed[0])
        self.attacks = report_attacks(threat, evaluation, num_classes, edges=self.edges)
        self.ball = ball(threat.norm, threat.epsilon)
        pixels = split.images[0].numel()
        attacks = self.attacks.values()
        shape = tuple(split.images.shape[1:])
        self.proofs = plan_proofs(classifier, shape, threat, evaluation, attacks)
        self.portions = evaluation_portions(
            evaluation, threat, attacks, len(split), pixels, self.proofs.passes
        )
        self.epsilons = curve_epsilons(threat, pixels)
        self.curve_positions = curve_positions(split.labels, evaluation, seed)
        self.shown_positions = shown_positions(split.labels)
        self.exponent = scale_exponent(self.unscaled, *probed)
        self.model = scaled(self.unscaled, self.exponent)
        self._state = self._blank()

    def _blank(self) -> State:
        n, shown = len(self.split), len(self.shown_positions)

        def outcome() -> State:
            return {
                "right": torch.zeros(n, dtype=torch.bool),
                "predicted": torch.full((n,), -1),
            }

        return {
            "edges": self.edges,
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
            "proof": self._blank_proof(n),
            "probe": {},
            "shown": {
                "images": torch.zeros(shown, *self.split.images.shape[1:]),
                "attack": [""] * shown,
                "predicted": [-1] * shown,
                "fooled": [False] * shown,
            },
        }

    def _blank_proof(self, count: int) -> State | None:
        plan = self.proofs
        if plan.certifier is None and not plan.reason:
            return None
        return {
            "method": plan.method,
            "reason": plan.reason,
            "loose": plan.certifier.loose if plan.certifier else (),
            "by": torch.full((count,), -1, dtype=torch.int8),
            "tried": 0,
            "seconds": 0.0,
            "curve": {"epsilons": [], "correct": [], "proven": []},
        }

    def state(self) -> State:
        """The results so far (not a copy), as a checkpoint saves them."""
        return self._state

    def restore(self, state: State) -> None:
        """Continue from the results ``state``."""
        self._state = state

    def run_portion(self, index: int) -> dict[str, float]:
        """Run portion ``index`` of ``portions``.

        Portions have to be run in order: later ones read the results of earlier ones.

        Returns:
            The figures that a progress event shows, by name.

        Raises:
            InvalidInput: ``non_finite_outputs`` if the model returns NaN or infinity.
        """
        portion = self.portions[index]
        match portion.kind:
            case "clean":
                return self._clean(portion)
            case "attack":
                return self._attack(portion)
            case "curve":
                return self._curve_point(portion)
            case "proof":
                return self._proof(portion)
            case "proof_curve":
                return self._proof_curve_point(portion)
            case "probe":
                return self._probe()

    def _clean(self, portion: Portion) -> dict[str, float]:
        positions = self._batch(portion)
        images, labels = self.split.batch(positions)
        with torch.no_grad():
            logits = self.model(images)
        require_finite(logits)
        predicted = logits.argmax(1)
        clean = self._state["clean"]
        clean["predicted"][positions] = predicted.cpu()
        clean["right"][positions] = (predicted == labels).cpu()
        return {"clean_accuracy": clean["right"][positions].float().mean().item()}

    def _batch(self, portion: Portion) -> Tensor:
        """The positions of the portion's images, int64."""
        size = self.evaluation.batch_size
        return torch.arange(len(self.split))[portion.index * size : (portion.index + 1) * size]

    def _attack(self, portion: Portion) -> dict[str, float]:
        assert portion.name is not None
        positions = self._batch(portion)
        standing = positions[self._standing(portion.name)[positions]]
        place = (_ATTACK, _PLACES.index(portion.name), portion.index)
        if known := self.attacks[portion.name].same_as:
            self._copy_outcome(known, portion.name, positions)
        elif len(standing):
            self._run_attack(portion.name, standing, place)
        right = self._state["attacks"][portion.name]["right"][positions]
        return {f"{portion.name}_accuracy": right.float().mean().item()}

    def _copy_outcome(self, known: AttackName, name: AttackName, positions: Tensor) -> None:
        """Take the outcome of one attack for another's, too."""
        attacks = self._state["attacks"]
        for figure in ("right", "predicted", "size"):
            attacks[name][figure][positions] = attacks[known][figure][positions]

    def _standing(self, name: AttackName) -> Tensor:
        """The images that this attack is run on, bool ``[N]``."""
        standing: Tensor = self._state["clean"]["right"]
        if self.attacks[name].ensemble and name != AUTOATTACK[0]:
            standing = self._state["attacks"][AUTOATTACK[AUTOATTACK.index(name) - 1]]["right"]
        return standing

    def _run_attack(self, name: AttackName, positions: Tensor, place: tuple[int, ...]) -> None:
        images, labels = self.split.batch(positions)
        model = CountingModel(self.model)
        generator = random_generator(labels.device, self.seed, *place)
        began = time.monotonic()
        attack = self.attacks[name].attack
        adversarial = run_attack(attack, model, images, labels, generator)
        predicted, right = answers(self.model, adversarial, labels)
        found = self._state["attacks"][name]
        found["seconds"] += time.monotonic() - began
        found["forward"] += model.forward_images
        found["backward"] += model.backward_images
        size = self.ball.size(adversarial - images).cpu()
        fooled = ~right.cpu()
        if self.attacks[name].within_threat:
            # A perturbation outside the ball does not count, even if the attack returned it.
            fooled &= is_within(self.ball, size)
            self._show(name, positions, adversarial.cpu(), predicted.cpu(), fooled)
        found["right"][positions] = ~fooled
        found["predicted"][positions] = predicted.cpu()
        found["size"][positions] = size

    def _show(
        self, name: str, positions: Tensor, adversarial: Tensor, predicted: Tensor, fooled: Tensor
    ) -> None:
        """Keep one adversarial example of each shown image.

        It is the first one that fools the model, or else the first one tried.
        """
        shown = self._state["shown"]
        for place, position in enumerate(self.shown_positions):
            here = (positions == position).nonzero()[:, 0]
            if not len(here):
                continue
            at = int(here)
            if not shown["attack"][place] or (fooled[at] and not shown["fooled"][place]):
                shown["images"][place] = adversarial[at]
                shown["attack"][place] = name
                shown["predicted"][place] = int(predicted[at])
                shown["fooled"][place] = bool(fooled[at])

    def _curve_point(self, portion: Portion) -> dict[str, float]:
        """Compute the accuracy within one radius.

        Only the images that stand within the smaller radii are attacked: a ball contains the
        smaller ones, so an image that fell within those has fallen here, too. Once the accuracy is
        down to chance and the curve has enough points, the remaining portions do nothing.
        """
        curve, epsilon = self._state["curve"], self.epsilons[portion.index]
        if portion.index == 0:
            curve["standing"] = self._state["clean"]["right"][self.curve_positions].tolist()
        elif self._at_chance(curve) and len(curve["correct"]) >= MIN_CURVE_POINTS:
            return {}
        else:
            standing = torch.tensor(curve["standing"]).nonzero()[:, 0]
            attack = pgd(ball(self.threat.norm, epsilon), self.evaluation.curve_steps)
            fallen = standing[self._fooled(attack, self.curve_positions[standing], portion)]
            for place in fallen.tolist():
                curve["standing"][place] = False
        curve["epsilons"].append(epsilon)
        curve["correct"].append(sum(curve["standing"]))
        return {"epsilon": epsilon, "curve_accuracy": curve["correct"][-1] / len(curve["standing"])}

    def _at_chance(self, curve: State) -> bool:
        correct, count = curve["correct"][-1], len(curve["standing"])
        return bool(correct <= count / self.num_classes)

    def _fooled(self, attack: Attack, positions: Tensor, portion: Portion) -> Tensor:
        """Whether the attack fools the model on each image at ``positions``, bool on the CPU."""
        fooled = [torch.zeros(0, dtype=torch.bool)]
        kind = _CURVE if portion.kind == "curve" else _PROBE
        generator = random_generator(self.split.labels.device, self.seed, kind, portion.index)
        for part in torch.split(positions, self.evaluation.batch_size):
            images, labels = self.split.batch(part)
            if len(part):
                adversarial = run_attack(attack, self.model, images, labels, generator)
                fooled.append(~answers(self.model, adversarial, labels)[1].cpu())
        return torch.cat(fooled)

    def _proof(self, portion: Portion) -> dict[str, float]:
        """Prove what stands under every attack: nothing else can be."""
        proof, size = self._state["proof"], min(self.evaluation.batch_size, PROOF_BATCH)
        positions = torch.arange(len(self.split))[portion.index * size :][:size]
        standing = positions[worst_case(self._state)[positions]]
        proof["by"][standing] = self._proven(standing, self.threat.epsilon)
        proof["tried"] += len(standing)
        return {"proven_accuracy": (proof["by"][positions] >= 0).float().mean().item()}

    def _proven(self, positions: Tensor, epsilon: float) -> Tensor:
        """The place in ``BOUNDS`` of what proves each image, or -1, int8 on the CPU."""
        assert self.proofs.certifier is not None
        began, found = time.monotonic(), []
        for part in torch.split(positions, PROOF_BATCH):
            images, labels = self.split.batch(part)
            found += self.proofs.certifier.prove(images, labels, epsilon) if len(part) else []
        self._state["proof"]["seconds"] += time.monotonic() - began
        places = [-1 if bound is None else BOUNDS.index(bound) for bound in found]
        return torch.tensor(places, dtype=torch.int8)

    def _proof_curve_point(self, portion: Portion) -> dict[str, float]:
        """Count what is proven within one radius.

        What is not proven within a smaller radius is not tried: a ball contains the smaller ones.
        Once nothing is proven, the remaining portions do nothing.
        """
        curve, epsilon = self._state["proof"]["curve"], self.epsilons[portion.index]
        if portion.index == 0:
            curve["proven"] = self._state["clean"]["right"][self.curve_positions].tolist()
        elif not curve["correct"][-1]:
            return {}
        else:
            places = torch.tensor(curve["proven"]).nonzero()[:, 0]
            found = self._proven(self.curve_positions[places], epsilon)
            for place in places[found < 0].tolist():
                curve["proven"][place] = False
        curve["epsilons"].append(epsilon)
        curve["correct"].append(sum(curve["proven"]))
        return {"epsilon": epsilon, "proven_accuracy": curve["correct"][-1] / len(curve["proven"])}

    def _probe(self) -> dict[str, float]:
        portion = self.portions[-1]
        positions = self.probe_positions
        images, labels = self.split.batch(positions)
        right = self._state["clean"]["right"][positions]
        probe = probes.probe(self.unscaled, images, labels, right, attacked=self.model)
        if self.exponent:
            probe["logit_exponent"] = self.exponent
        standing = positions[worst_case(self._state)[positions]]
        stronger = pgd(self.ball, PROBE_EFFORT * self.evaluation.pgd_steps)
        fallen = int(self._fooled(stronger, standing, portion).sum())
        probe["effort"] = {
            "steps": stronger.steps,
            "images": len(positions),
            "standing": len(standing),
            "fallen": fallen,
        }
        self._state["probe"] = probe
        return {"probe_fallen": float(fallen)}


def worst_case(state: State) -> Tensor:
    """Whether each image is classified correctly in the worst case, bool ``[N]``.

    The image has to be right without an attack and under every attack that keeps to the threat's
    ball.

    Args:
        state: an ``Evaluator``'s state after all of its portions but the curve's and the probe.
    """
    attacks = state["attacks"].values()
    rights = [found["right"] for found in attacks if found["within_threat"]]
    return torch.stack([state["clean"]["right"], *rights]).all(0)
