"""Roles for machines."""
