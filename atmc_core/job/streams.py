"""The streams of random numbers in a job: each stage and each other use draws from its own.

A stream is named by the job's seed and one of these numbers (see ``random_generator``). The numbers
must stay as they are, since others would change the bytes of every artifact.
"""

DENSE, COMPRESS, FINISH, SELECT, REPORT, UPLOAD_CHECK = range(6)
