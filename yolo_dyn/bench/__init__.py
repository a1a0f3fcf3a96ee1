"""Speed and size: models and layers timed in turn, the cost of noise, multiply-adds, the papers' counts."""
