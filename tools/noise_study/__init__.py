"""Measurements and figures of tools/label_noise.py."""
