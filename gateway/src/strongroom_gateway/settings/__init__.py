"""What operators change of the gateway while it runs."""
