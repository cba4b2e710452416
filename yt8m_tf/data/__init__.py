"""From shards to batches: reading, parsing, order, damage, sampling and preprocessing of frames."""
