"""Scores shards with trained models, out of fold: from shards to score shards."""
