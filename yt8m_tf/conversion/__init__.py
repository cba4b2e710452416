"""Conversion of users' own features and labels to shards in the dataset's format."""
