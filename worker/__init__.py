"""Runs the jobs: claims a row, supervises a child process that does the work, publishes the result.

`app` is the Celery app, `supervisor` the life of one attempt, `guard` what ends it early, `child`
the process with the method in it, `folder` what the two exchange. What lost workers leave behind
is the keeper's work.
"""
