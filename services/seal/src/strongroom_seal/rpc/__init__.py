"""The contract to and from the seal."""
