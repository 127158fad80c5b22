"""Writes what ``atmc_reader`` has to know of the architectures: their tensors' names and shapes.

    python -m atmc_core.artifact.catalogue

A test holds ``atmc_reader/architectures.json`` to it.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from atmc_core.artifact.writing import tensors_of
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.architectures.registry import ARCHITECTURES


def catalogue() -> str:
    """The catalogue as JSON; a dimension that is the number of classes is null in it."""
    found: dict[str, Any] = {}
    for name, architecture in ARCHITECTURES.items():
        network, marker = architecture.with_marker()
        views = compressible_weights(network)
        others = {
            key: tensor
            for key, tensor in network.state_dict().items()
            if key not in views and tensor.is_floating_point()
        }
        found[name] = [
            [[row[0], [None if n == marker else n for n in row[1]], *row[2:3]] for row in rows]
            for rows in tensors_of(views, others).to_json()
        ]
    return json.dumps(found, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    with resources.as_file(resources.files("atmc_reader")) as folder:
        (Path(folder) / "architectures.json").write_text(catalogue())
