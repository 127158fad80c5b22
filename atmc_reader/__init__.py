"""Reads a compressed network, an ``.atmc`` file, with numpy and the entropy coder alone.

    python -m atmc_reader FILE [--output WEIGHTS.npz]

``docs/format.md`` says how such a file is laid out.
"""

from atmc_reader.files import MALFORMED, File, open_file

__all__ = ["MALFORMED", "File", "open_file"]
