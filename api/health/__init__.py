"""Health checks and metrics of the service and its parts."""
