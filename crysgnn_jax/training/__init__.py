"""Everything between a model and a finished run: devices, steps, the loop, checkpoints."""
