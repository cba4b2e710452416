"""The mutants of tools/mutate.py, the tests that cover them, and their outcomes."""
