"""Leases: how they are given, kept, renewed and revoked."""
