"""What API, workers and keeper share: settings, tables, objects, the lease protocol, events.

Every function that takes a `Session` works inside the caller's transaction (see
`jobstore.database.Database`) and returns mapped objects, which stay readable after the transaction
has ended: nothing is lazily loaded and nothing expires on commit.
"""
