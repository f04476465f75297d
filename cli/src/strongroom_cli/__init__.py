"""The strongroom command: the composition root."""
