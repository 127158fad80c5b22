"""Ids that say what they name and sort by the time they were made."""

import re

from uuid6 import uuid7

_JOB_ID = re.compile(r"job_[0-9a-f]{32}")


def new_job_id() -> str:
    """Return `job_` and a UUIDv7 in hex."""
    return f"job_{uuid7().hex}"


def is_job_id(text: str) -> bool:
    """Tell whether `new_job_id` can have made this."""
    return _JOB_ID.fullmatch(text) is not None


def new_model_id() -> str:
    """Return `mdl_` and a UUIDv7 in hex."""
    return f"mdl_{uuid7().hex}"


def new_dataset_id() -> str:
    """Return `dst_` and a UUIDv7 in hex."""
    return f"dst_{uuid7().hex}"


def new_upload_id() -> str:
    """Return `upl_` and a UUIDv7 in hex."""
    return f"upl_{uuid7().hex}"


def new_key_id() -> str:
    """Return `key_` and a UUIDv7 in hex."""
    return f"key_{uuid7().hex}"
