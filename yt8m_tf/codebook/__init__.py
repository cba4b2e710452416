"""A codebook of frames: k-means over frames of shards, and the file of its centroids."""
