"""What may be asked for: architectures, methods and attacks, as the workers published them."""
