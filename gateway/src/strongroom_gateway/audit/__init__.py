"""Audit entries: made here, with values hashed, so that the audit service never sees them."""
