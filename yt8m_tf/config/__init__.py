"""Configurations: strict YAML, the settings of a training run, the input specification of models."""
