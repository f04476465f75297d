"""What every service shares: errors, storage, barrier, transport, telemetry."""
