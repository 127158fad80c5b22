"""Runs the jobs: claims a job, supervises a child process that does the work, stores the results.

`app` is the Celery app. `supervisor` runs one attempt of a job after the other, and `guard` ends an
attempt early. `child` is the process that runs the method, and `folder` is the folder by which
supervisor and child communicate. The keeper cleans up after workers that were lost.
"""
