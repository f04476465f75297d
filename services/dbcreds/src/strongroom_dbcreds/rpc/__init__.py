"""From the contract to the service's own terms, and back."""
