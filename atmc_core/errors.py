"""The errors of the method that are the caller's to mend."""

from atmc_spec.errors import InvalidInput

__all__ = ["InvalidInput"]
