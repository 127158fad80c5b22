"""Webhooks: who is told of what, and what came of it."""
