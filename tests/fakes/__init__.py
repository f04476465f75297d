"""Fakes: one per interface, tested by the conformance suite of that interface."""
