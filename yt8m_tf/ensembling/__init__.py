"""One graph of several models: weighted means of runs, and packing the best of them into a byte budget."""
