"""What it takes to run a model elsewhere: latency."""
