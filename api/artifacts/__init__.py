"""The files that jobs made."""
