"""Changing passwords of users that stay: static roles, and the connections' own users."""
