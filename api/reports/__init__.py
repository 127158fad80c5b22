"""The report of a finished job, for programs and for people."""
