"""Features that people have, and labels of their own, to shards in the dataset's format."""
