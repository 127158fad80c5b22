"""The public keys by which results are known."""
