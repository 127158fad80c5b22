"""Architectures, methods and attacks, as the workers published them."""
