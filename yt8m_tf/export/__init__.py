"""Exports runs as SavedModels and LiteRT models, measures them, and strips checkpoints of optimizer slots."""
