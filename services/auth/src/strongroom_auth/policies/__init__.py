"""Policies: where they are kept, and what they allow."""
