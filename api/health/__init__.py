"""Whether the service lives, and whether its parts do."""
