"""What the service answers, as a type checker sees it: dictionaries with known fields."""
