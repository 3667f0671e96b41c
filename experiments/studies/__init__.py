"""The studies behind `results/`: each file a command that writes its part of it."""
