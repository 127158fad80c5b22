"""The HTTP surface, and nothing else: routes, schemas, problem documents, the report page."""
