"""What is decided without storage or network."""
