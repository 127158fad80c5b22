"""Uploads for the tests, good and bad, as bytes."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from atmc_core.job.catalogue import catalogue

CATALOGUE = catalogue()
ARCHITECTURES = {e.name: e.document for e in CATALOGUE if e.kind == "architecture"}
ARCHITECTURE = "digits_cnn"

SPEC: dict[str, Any] = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1},
}


def weights(num_classes: int = 10) -> dict[str, np.ndarray]:
    """The tensors of an `ARCHITECTURE`, all zero."""
    tensors = ARCHITECTURES[ARCHITECTURE]["tensors"]
    return {
        key: np.zeros([num_classes if n == "num_classes" else n for n in entry["shape"]], "float32")
        for key, entry in tensors.items()
    }


def dense_weights() -> int:
    """N, the number of dense weights of the network that the tests send."""
    arrays = weights()
    return sum(arrays[key].size for key in ARCHITECTURES[ARCHITECTURE]["compressible"])


def safetensors_file(tensors: Mapping[str, np.ndarray] | None = None) -> bytes:
    """A safetensors file; by default one that fits `ARCHITECTURE`."""
    return safetensors.numpy.save(dict(weights() if tensors is None else tensors))


def safetensors_raw(header: bytes, data: bytes = b"") -> bytes:
    """A file with this header, whatever it says."""
    return len(header).to_bytes(8, "little") + header + data


def torch_file(value: object | None = None, **options: Any) -> bytes:
    """What torch.save writes; by default a state dict that fits `ARCHITECTURE`."""
    if value is None:
        value = {key: torch.from_numpy(array) for key, array in weights().items()}
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def torchscript_file() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # TorchScript is deprecated: it is still what users have on their disks.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    return file.getvalue()


def torch_zip(data_pkl: bytes, **members: bytes) -> bytes:
    """A `.pt` file whose index is any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for name, content in members.items():
            archive.writestr(f"archive/data/{name}", content)
    return file.getvalue()


class Malicious:
    """Runs a shell command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (self.command,)


def malicious_pickle(command: str, protocol: int = 2) -> bytes:
    return pickle.dumps({"weight": Malicious(command)}, protocol=protocol)


def images(count: int = 20) -> dict[str, np.ndarray]:
    """The arrays of a data set of 8x8 digits."""
    return {
        "x_train": np.zeros((count, 8, 8), "uint8"),
        "y_train": np.arange(count) % 10,
        "x_test": np.zeros((count, 8, 8), "uint8"),
        "y_test": np.arange(count) % 10,
    }


def npz_file(arrays: Mapping[str, Any] | None = None, *, compressed: bool = True) -> bytes:
    """An `.npz` file; by default one that fits `ARCHITECTURE`."""
    file = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(file, **(images() if arrays is None else arrays))
    return file.getvalue()


def zip_file(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
