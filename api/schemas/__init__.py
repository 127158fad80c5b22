"""The JSON Schemas that the workers publish, of the documents that jobs make."""
