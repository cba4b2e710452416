"""What tools/label_noise.py measures and shows."""
