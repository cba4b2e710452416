"""The dataset itself: which files it has, and fetching them whole."""
