"""A codebook of frames: k-means over the frames of shards, and the file of centroids."""
