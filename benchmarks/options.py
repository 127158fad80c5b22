"""What the command lines of several benchmarks share."""

import argparse


def count(text: str) -> int:
    """A whole number of at least one, of images, steps or the like."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, not {text}")
    return number
