"""Users with passwords."""
