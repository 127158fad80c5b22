"""What a sweep tries, and what comes of it: pure functions, without a database or torch.

`grid` makes the specs of its trials, `front` says which of them are worth having. Of a sweep that
has a goal, `goal` makes the specs and reads the figures, and `search` chooses what to try. API and
keeper use them.
"""
