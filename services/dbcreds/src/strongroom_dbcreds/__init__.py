"""The dbcreds service: database users that live as long as their leases."""
