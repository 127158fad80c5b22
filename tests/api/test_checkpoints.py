"""The table "State dicts" of docs/formats.md: what comes in, by the API and by the job alike."""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from api.inspection import fit, read_model_header
from api.problems import Problem
from atmc_core.errors import InvalidInput
from atmc_core.networks.architectures import ARCHITECTURES, build
from atmc_core.networks.upload import ModelInput, open_upload
from tests.api.files import torch_file

State = dict[str, Tensor]
DOCUMENT = ARCHITECTURES["digits_cnn"].describe()


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("digits_cnn", 10)


def behind(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def other(state: State) -> State:
    """An average beside the weights: the same names, other numbers."""
    return {name: tensor * 0.5 for name, tensor in state.items()}


def trained(state: State) -> dict[str, Any]:
    """What training scripts write beside the weights."""
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.rand(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])
    return {
        "epoch": 3,
        "best": torch.tensor(0.9),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "hyper_parameters": {"lr": 0.1, "dtype": torch.float16, "size": torch.Size([1, 8, 8])},
        "names": ["ant", "bee"],
        "seen": {1, 2},
    }


def pruned() -> State:
    net = network()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            prune.l1_unstructured(module, "weight", 0.5)
    return net.state_dict()


def normed() -> State:
    net = network()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.utils.parametrizations.weight_norm(module)
    return net.state_dict()


def averaged() -> State:
    return torch.optim.swa_utils.AveragedModel(network()).state_dict()


def compiled() -> State:
    """What a network looks like of which one part was compiled."""
    first, *rest = network().state_dict().items()
    module, _, name = first[0].rpartition(".")
    return {f"{module}._orig_mod.{name}": first[1]} | dict(rest)


FITS: tuple[str, ...] = ()
SEVERAL, MISMATCH, UNSAFE = "several_state_dicts", "tensor_mismatch", "unsafe_pickle"
NESTED, PREFIX, MASKS = "state_dict_nested", "prefix_stripped", "masks_applied"
CASES: dict[str, tuple[list[Callable[[State], Any]], tuple[str, ...] | str]] = {
    "alone, in safetensors or a `.pt`": ([lambda s: s], FITS),
    "under a key, at any depth, beside plain data and optimisers": (
        [
            lambda s: {"state_dict": s, "epoch": 3},
            lambda s: {"epoch": 3, "state_dict": s},
            lambda s: trained(s) | {"model": s},
            lambda s: trained(s) | {"model_state_dict": s},
            lambda s: {"epoch": 3, "ema": {"decay": 0.99, "shadow": s}},
            lambda s: {"models": [s]},
            lambda s: {"net": s, "acc": 93.1, "again": s},
        ],
        (NESTED,),
    ),
    "among numbers and texts": ([lambda s: s | {"epoch": 3, "arch": "digits_cnn"}], (NESTED,)),
    "with `module.` (DataParallel) or `_orig_mod.` (`torch.compile`) anywhere in the names": (
        [
            lambda s: behind("module.", s),
            lambda s: behind("_orig_mod.module.", s),
            lambda s: compiled(),
        ],
        (PREFIX,),
    ),
    "with one prefix before all names: `model.`, `net.`, `model.net.`, ...": (
        [
            lambda s: behind("model.", s),
            lambda s: behind("model.net.", s),
            lambda s: behind("1.", s),
        ],
        (PREFIX,),
    ),
    "both": (
        [
            lambda s: {"state_dict": behind("model._orig_mod.", s), "epoch": 3},
            lambda s: {"model_ema": averaged()},
        ],
        (NESTED, PREFIX),
    ),
    "of an `AveragedModel`": ([lambda s: averaged()], (PREFIX,)),
    "with `X_orig` and `X_mask` (`torch.nn.utils.prune`)": ([lambda s: pruned()], (MASKS,)),
    "with averaged (EMA) weights beside the raw ones": (
        [
            lambda s: {"model": s, "ema": {"shadow": other(s)}},
            lambda s: {"state_dict": s, "state_dict_ema": other(s)},
            lambda s: {"model": behind("module.", s), "model_ema": averaged()},
            lambda s: behind("model.", s) | behind("ema_model.module.", other(s)),
        ],
        SEVERAL,
    ),
    "with other tensors beside them": (
        [
            lambda s: {"0.mean": torch.zeros(1), "0.std": torch.ones(1)} | behind("1.", s),
            lambda s: s | {"criterion.weight": torch.ones(10)},
        ],
        MISMATCH,
    ),
    "of another network": ([lambda s: build("lenet", 10).state_dict()], MISMATCH),
    "with weight norm or spectral norm": ([lambda s: normed()], MISMATCH),
    "with Python objects beside them, NumPy's numbers among these": (
        [
            lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)},
            lambda s: {"model": s, "acc": np.float64(0.9)},
        ],
        UNSAFE,
    ),
    "as a pickled network": ([lambda s: network(), lambda s: {"model": network()}], UNSAFE),
}
ROWS = [
    pytest.param(make, outcome, id=f"{name} {number}")
    for name, (makes, outcome) in CASES.items()
    for number, make in enumerate(makes)
]


def by_api(content: bytes) -> str:
    try:
        header = read_model_header(io.BytesIO(content))
        found = fit(header.state_dicts, "digits_cnn", DOCUMENT)
    except Problem as problem:
        return problem.code
    assert found.dimensions == {"num_classes": 10}
    assert found.dense_weights == sum(
        weight.numel() for name, weight in network().named_parameters() if weight.ndim > 1
    )
    return ""


def contents(made: Any) -> list[bytes]:
    """The file by torch.save and, where it is tensors alone, by safetensors."""
    flat = isinstance(made, dict) and all(isinstance(each, Tensor) for each in made.values())
    return [torch_file(made)] + ([safetensors.torch.save(made)] if flat else [])


@pytest.mark.parametrize(("make", "outcome"), ROWS)
def test_a_row_of_the_table(
    make: Callable[[State], Any], outcome: tuple[str, ...] | str, tmp_path: Path
) -> None:
    state = network().state_dict()
    for content in contents(make(state)):
        path = tmp_path / "model"
        path.write_bytes(content)
        if isinstance(outcome, str):
            assert by_api(content) == outcome
            with pytest.raises(InvalidInput) as refused:
                open_upload(ModelInput(path, "digits_cnn")).load((1, 8, 8))
            assert refused.value.code == ("malformed_model" if outcome == UNSAFE else outcome)
            continue
        assert by_api(content) == ""
        loaded = open_upload(ModelInput(path, "digits_cnn")).load((1, 8, 8))
        assert tuple(code for code, _ in loaded.notes) == outcome
        zeros = 0
        for name, tensor in loaded.network.state_dict().items():
            kept = tensor != 0 if MASKS in outcome else torch.ones_like(tensor) > 0
            assert torch.equal(tensor[kept], state[name][kept])
            zeros += int((~kept).sum())
        assert (zeros > 0) == (MASKS in outcome)


def test_the_table_of_the_docs_has_these_rows() -> None:
    text = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    table = text.partition("| a state dict comes |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table] == list(CASES)


def refused(made: Any) -> Problem:
    content = io.BytesIO(torch_file(made))
    with pytest.raises(Problem) as caught:
        fit(read_model_header(content).state_dicts, "digits_cnn", DOCUMENT)
    return caught.value


def test_two_state_dicts_that_fit_are_named_with_the_line_that_chooses() -> None:
    state = network().state_dict()
    problem = refused({"epoch": 3, "model": state, "ema": {"shadow": other(state)}})
    assert "2 state dicts of the file fit 'digits_cnn': ['model'], ['ema']['shadow']" in (
        problem.detail
    )
    assert "torch.save(torch.load('model.pt', map_location='cpu')['model'], 'state_dict.pt')" in (
        problem.detail
    )
    assert "averages over training" in problem.detail
    flat = behind("model.", state) | behind("ema.", other(state))
    assert "the keys that begin with 'model.', the keys that begin with 'ema.'" in (
        refused(flat).detail
    )


def test_a_normalisation_among_the_tensors_is_told() -> None:
    state = {"0.mean": torch.zeros(1), "0.std": torch.ones(1)}
    problem = refused(state | behind("1.", network().state_dict()))
    assert "2 unexpected keys (0.mean, 0.std)" in problem.detail
    assert "send the tensors that begin with '1.' alone" in problem.detail
    assert "as the model's 'normalization'" in problem.detail


@pytest.mark.parametrize(
    ("wrap", "taken"),
    [
        (lambda s: {"args": argparse.Namespace(lr=0.1), "model": s}, "['model']"),
        (lambda s: {"acc": np.float64(0.9), "ema": {"shadow": s}}, "['ema']['shadow']"),
        (lambda s: network(), ".state_dict()"),
        (lambda s: {"epoch": 3, "model": network()}, "['model'].state_dict()"),
        (lambda s: {"model": s, "args": argparse.Namespace(a=[1, {2: 3}, (None,)])}, "['model']"),
    ],
)
def test_the_command_that_takes_the_tensors_out_does_so(
    wrap: Callable[[State], Any], taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = network().state_dict()
    made = wrap(state)
    problem = refused(made)
    assert problem.code == UNSAFE
    assert f"weights_only=False){taken}, 'state_dict.pt')" in problem.detail
    monkeypatch.chdir(tmp_path)
    torch.save(made, "model.pt")
    exec(problem.detail.partition('python -c "')[2].rstrip('"'))
    assert by_api((tmp_path / "state_dict.pt").read_bytes()) == ""


def test_no_command_holds_words_of_an_upload_that_a_shell_would_run() -> None:
    state = network().state_dict()
    problem = refused({"$(touch it)`ls`": state, "args": argparse.Namespace()})
    assert problem.code == UNSAFE
    assert "$(" not in problem.detail


def test_a_file_that_refers_to_itself_again_and_again_is_read_once() -> None:
    state = network().state_dict()
    node: Any = [state]
    for _ in range(200):
        node = [node, node]
    many = {str(number): {"x": torch.zeros(1)} for number in range(2000)}
    content = io.BytesIO(torch_file({"b": many, "a": node, "c": state}))
    assert fit(read_model_header(content).state_dicts, "digits_cnn", DOCUMENT).dimensions
    with pytest.raises(Problem, match=r"\['b'\]\['0'\] does not fit 'digits_cnn'"):
        fit(
            read_model_header(io.BytesIO(torch_file({"b": many}))).state_dicts,
            "digits_cnn",
            DOCUMENT,
        )
