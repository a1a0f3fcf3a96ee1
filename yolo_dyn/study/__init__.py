"""Studies of models: what they cost, what they gain."""
