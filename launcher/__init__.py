"""Starts API, worker, keeper and embedded broker on one machine, and ends them together."""
