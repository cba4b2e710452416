"""GAP@20 and the other metrics: the part on the device, their exact accumulation, a pass over a dataset."""
