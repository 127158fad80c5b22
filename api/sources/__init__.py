"""Files that lie elsewhere, and results that are put there: by the operator's connections."""
