"""The noise of a camera, measured from a burst of its own frames."""
