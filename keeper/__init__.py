"""Keeps the service in order, in a process of its own without torch: `python -m keeper`.

`sweep` queues the jobs of dead workers again, and wakes workers for jobs that wait. `retention`
deletes what has expired. `webhooks` sends the deliveries that are due, with the help of `posting`.
`trials` advances the sweeps that users have begun, by `steps`.
"""
