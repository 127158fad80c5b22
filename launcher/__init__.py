"""Starts API, worker, keeper and embedded broker together on one machine, and ends them together."""
