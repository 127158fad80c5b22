"""The error of an input that the caller must correct."""

_MAX_MESSAGE = 1500


class InvalidInput(ValueError):
    """An input that cannot be used, with what to do about it.

    Args:
        code: stable, machine-readable, such as ``non_finite_weights``.
        message: a sentence that names the value found and what was expected. It is cut after 1500
            characters, since what libraries say of broken files can be longer than anyone reads.
        param: the offending part: a dotted path in the spec, or a tensor's or an array's name.

    Example:
        >>> error = InvalidInput("k_out_of_range", "choose k from 1 to 10", "target.k")
        >>> error.code, error.param, str(error)
        ('k_out_of_range', 'target.k', 'choose k from 1 to 10')
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        message = message[:_MAX_MESSAGE]
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
