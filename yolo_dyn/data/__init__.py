"""What is evaluated: images with their ground truth, and the embedded data set."""
