"""Datasets over shards, losses on logits and the GAP@20 metric for Keras `compile` and `fit`."""
