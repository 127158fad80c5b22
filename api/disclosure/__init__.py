"""Whom to tell of a weakness."""
