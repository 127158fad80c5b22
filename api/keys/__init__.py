"""Keys: who may call, for whom, and what."""
