"""Types of command-line options that several benchmarks share."""

import argparse
from fractions import Fraction


def count(text: str) -> int:
    """An option that is a number of images, steps or the like: an integer of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, not {text}")
    return number


def number(text: str) -> float:
    """An option that is a number, or a fraction such as 8/255."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        message = f"a number, or a fraction such as 8/255, is needed, not {text}"
        raise argparse.ArgumentTypeError(message) from None
