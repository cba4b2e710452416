"""The competition's limit on a model, in a module that flags can import without TensorFlow."""

SIZE_LIMIT = 1_000_000_000  # bytes, uncompressed
