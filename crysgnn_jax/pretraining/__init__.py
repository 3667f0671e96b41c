"""Learning without labels: one file an objective."""
