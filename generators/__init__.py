"""Writes what is made from something else and kept in the repository; `python -m generators`."""
