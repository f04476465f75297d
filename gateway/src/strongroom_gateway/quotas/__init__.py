"""How often clients may ask."""
