"""Examples of using the service and the library."""
