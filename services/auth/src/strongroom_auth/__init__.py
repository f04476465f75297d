"""The auth service: tokens, policies, login methods."""
