"""The measurements of tools/benchmark.py: a module for each sub-command, and shared modules."""
