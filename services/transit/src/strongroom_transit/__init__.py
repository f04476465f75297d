"""The transit service: keys that never leave, and what is done with them."""
