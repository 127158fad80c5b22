"""Ids that say what they name and sort by the time they were made."""

from uuid6 import uuid7


def new_job_id() -> str:
    """Return `job_` and a UUIDv7 in hex."""
    return f"job_{uuid7().hex}"


def new_model_id() -> str:
    """Return `mdl_` and a UUIDv7 in hex."""
    return f"mdl_{uuid7().hex}"


def new_dataset_id() -> str:
    """Return `dst_` and a UUIDv7 in hex."""
    return f"dst_{uuid7().hex}"


def new_sweep_id() -> str:
    """Return `sweep_` and a UUIDv7 in hex."""
    return f"sweep_{uuid7().hex}"


def new_upload_id() -> str:
    """Return `upl_` and a UUIDv7 in hex."""
    return f"upl_{uuid7().hex}"


def new_key_id() -> str:
    """Return `key_` and a UUIDv7 in hex."""
    return f"key_{uuid7().hex}"


def new_audit_id() -> str:
    """Return `aud_` and a UUIDv7 in hex."""
    return f"aud_{uuid7().hex}"


def new_webhook_id() -> str:
    """Return `whk_` and a UUIDv7 in hex."""
    return f"whk_{uuid7().hex}"


def new_delivery_id() -> str:
    """Return `msg_` and a UUIDv7 in hex."""
    return f"msg_{uuid7().hex}"
