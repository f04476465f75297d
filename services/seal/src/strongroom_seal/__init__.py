"""The seal service: initialisation, unsealing, the root key and the key rings of all services."""
