"""Every name that `atmc_core` promises is documented by an example that runs."""

import doctest
import importlib
import subprocess
import sys

import pytest

import atmc_core


@pytest.mark.parametrize("name", atmc_core.__all__)
def test_each_name_has_an_example_that_runs(name: str) -> None:
    promised = getattr(atmc_core, name)
    names = vars(importlib.import_module(promised.__module__)) | {name: promised}
    (example,) = doctest.DocTestFinder(recurse=False).find(promised, name, globs=names)
    assert example.examples
    report: list[str] = []
    assert doctest.DocTestRunner().run(example, out=report.append).failed == 0, "".join(report)


def test_the_solver_and_its_benchmarks_need_no_pydantic() -> None:
    program = (
        "import sys\n"
        "sys.modules['pydantic'] = None\n"
        "from atmc_core import Compressor, PGD, adversarial_loss, compact, load\n"
        "import benchmarks.gpu, benchmarks.resnet, benchmarks.throughput\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
