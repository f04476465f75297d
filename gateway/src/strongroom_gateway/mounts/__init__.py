"""The mount table."""
