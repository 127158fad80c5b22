"""Sweeps: create, read, wait, cancel, delete, and their events."""
