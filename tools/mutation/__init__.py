"""The mutants of tools/mutate.py: which there are, which tests cover them, what became of them."""
