"""Sample data in the original formats: a generative model, its exact posterior, clips around given means, shards."""
