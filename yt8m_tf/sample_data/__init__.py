"""Sample data in the original formats: a generative model with its exact posterior, clips about given means, shards."""
