"""The error that is raised for input that the caller has to correct."""

from atmc_spec.errors import InvalidInput

__all__ = ["InvalidInput"]
