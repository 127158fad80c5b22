"""Architectures, methods, attacks and schemas, as the workers published them."""
