"""Why a network has no certificate."""


class NotProvable(Exception):
    """The network has an operation without a bound; the message names it."""
