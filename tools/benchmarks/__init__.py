"""The measurements of tools/benchmark.py: one module for each sub-command, and what they share."""
