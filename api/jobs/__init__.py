"""Jobs: create, read, wait, cancel, and their events."""
