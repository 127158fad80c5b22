"""`GET /audit`: the audit log."""
