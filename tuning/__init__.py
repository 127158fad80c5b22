"""What a sweep tries, and what comes of it: pure functions, without a database or torch.

`grid` makes the specs of its trials, `front` says which of them are worth having. API and keeper
use both.
"""
