"""Download of the dataset: its list of files, and transfers that are verified."""
