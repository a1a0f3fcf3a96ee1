"""Studies as data: each is a YAML of arms, and a table of a paper; the runner, and the page of its results."""
