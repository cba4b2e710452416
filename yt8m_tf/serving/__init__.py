"""Inference with any SavedModel that scores records, output formats, and bundles; needs no model code."""
