"""The kv service: KV version 1 and 2, cubbyhole."""
