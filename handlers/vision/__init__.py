"""Images: bytes to an upright RGB image, and that to the network's input."""
