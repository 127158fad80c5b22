"""Steps to a hyperplane are the shortest in the box, as a general solver confirms."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from atmc_core.attacks.hyperplane import to_hyperplane
from atmc_core.attacks.norms import ball


def _shortest(point: np.ndarray, normal: np.ndarray, excess: float, norm: str) -> float:
    size = len(point)
    if norm == "linf":
        bound = np.ones((size, 1))
        rows = np.block([[np.eye(size), -bound], [-np.eye(size), -bound]])
        box = [(-p, 1 - p) for p in point] + [(0, None)]
        target = np.append(np.zeros(size), 1)
        equal = np.append(normal, 0)[None]
        return linprog(target, rows, np.zeros(2 * size), equal, [-excess], box).fun
    solved = minimize(
        lambda d: d @ d,
        np.zeros(size),
        jac=lambda d: 2 * d,
        bounds=[(-p, 1 - p) for p in point],
        constraints={"type": "eq", "fun": lambda d: normal @ d + excess, "jac": lambda d: normal},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return float(np.sqrt(solved.fun))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steps_end_on_the_hyperplane_and_none_is_shorter(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(40, 12, generator=generator)
    points[:, :3] = points[:, :3].round()  # on the walls of the box
    normals = torch.randn(40, 12, generator=generator)
    normals[:, 5] = 0
    excess = torch.randn(40, generator=generator)
    steps = to_hyperplane(points, normals, excess, norm)
    assert (points + steps).min() >= -1e-6
    assert (points + steps).max() <= 1 + 1e-6
    torch.testing.assert_close((normals * steps).sum(1), -excess, atol=1e-4, rtol=1e-4)
    lengths = ball(norm, 1).size(steps)
    for row in range(40):
        best = _shortest(
            points[row].double().numpy(), normals[row].double().numpy(), float(excess[row]), norm
        )
        assert float(lengths[row]) == pytest.approx(best, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_out_of_reach_it_goes_as_far_as_the_box_allows(norm: str) -> None:
    points, normals = torch.tensor([[0.25, 0.5, 0.75]]), torch.tensor([[1.0, -2.0, 0.0]])
    steps = to_hyperplane(points, normals, torch.tensor([9.0]), norm)
    torch.testing.assert_close(steps, torch.tensor([[-0.25, 0.5, 0.0]]))
