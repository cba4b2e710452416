"""The competition's bound on a model. A module of its own: flags need it before TensorFlow is imported."""

SIZE_LIMIT = 1_000_000_000  # bytes, uncompressed
