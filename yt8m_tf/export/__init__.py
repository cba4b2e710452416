"""From a run to a SavedModel: precision, proof, LiteRT; removing what serving does not need."""
