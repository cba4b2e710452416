"""The training loop, its step, state and checkpoints, on one device, several, or several machines."""
