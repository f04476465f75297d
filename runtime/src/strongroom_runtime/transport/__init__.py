"""Mutual TLS between services: the internal CA, credentials, channels."""
