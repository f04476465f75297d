"""Translates the contract to and from the domain."""
