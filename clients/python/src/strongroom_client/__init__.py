"""Helpers for Python clients of Strongroom."""
