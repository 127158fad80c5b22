"""The schema's history, run by `jobstore.database.migrate`."""
