"""Configurations: strict YAML, the configuration of a training run, what a model knows of its input."""
