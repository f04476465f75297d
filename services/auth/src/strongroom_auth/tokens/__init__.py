"""Tokens: what they are, how they are made, renewed and revoked."""
