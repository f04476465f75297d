"""What decides, without I/O and with time passed in."""
