"""What Keras `compile` and `fit` take: datasets over shards, losses on logits, GAP@20 as a metric."""
