"""Everything that knows verl."""
