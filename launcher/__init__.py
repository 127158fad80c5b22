"""Starts API, worker, sweep and embedded broker together on one machine, and ends them together."""
