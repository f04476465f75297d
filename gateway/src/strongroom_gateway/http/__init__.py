"""The HTTP wire: Vault's API."""
