"""What the gateway knows by itself."""
