"""What it takes to run a model elsewhere: exported files, their agreement, scores and latency."""
