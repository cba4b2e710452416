"""GAP@20 and the other metrics: the part on the device, exact accumulation, and the pass over a dataset."""
