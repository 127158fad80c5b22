"""Reads an ONNX classifier that says how large its images are, as a job does."""

from pathlib import Path

from atmc_core.networks.onnx.document import read_document
from atmc_core.networks.onnx.importer import Imported, read_images_onnx


def read_onnx(path: Path) -> Imported:
    return read_images_onnx(read_document(path), ())
