"""Receiving files: parsed, hashed and stored while they arrive, then looked into."""
