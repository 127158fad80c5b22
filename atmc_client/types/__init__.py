"""What is sent and what the service answers, to a type checker: dictionaries with known fields."""
