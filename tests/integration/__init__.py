"""Whole platforms, started as a user starts them, and used by clients that were not written here."""
