"""What the gateway reads from the contracts: routes, JSON forms, the API description."""
