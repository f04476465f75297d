"""Answers kept under a token that opens them once."""
