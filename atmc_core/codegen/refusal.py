"""Why there is no C file of a network."""


class NotCovered(Exception):
    """The network has a part that the generator does not write as C; the message names it."""
