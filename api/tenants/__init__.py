"""Tenants: their quotas, and how long what is theirs is kept."""
