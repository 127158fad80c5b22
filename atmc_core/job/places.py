"""Places in a job that draw random numbers of their own.

Each number is part of a seed, so it must stay: another one changes the bytes of every artifact.
"""

DENSE, COMPRESS, FINISH, SELECT, REPORT = range(5)
