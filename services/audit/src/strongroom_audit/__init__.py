"""The audit service: audit devices, the hash chain, durability of the log."""
