"""Download of the dataset: its list of files, and verified transfers."""
