"""The model over clustered frames against an independent NumPy forward pass (see `reference`)."""

import numpy as np
from reference import BATCH_SIZE, FEATURES, check, prepare, resnet_like


def test_cluster_resnet(rng):
    options = {"name": "cluster_resnet", "num_clusters": 50, "resnet": {"inner_size": 16, "concat_blocks": 2}}
    model, inputs, w = prepare(options, "frame", rng)
    centroids = w["codebook/centroids"]  # [K, D]
    means = np.zeros((BATCH_SIZE, sum(FEATURES.values())))
    for b, count in enumerate(inputs["num_frames"]):
        for t in range(count):
            frame = np.concatenate([inputs["rgb"][b, t], inputs["audio"][b, t]]).astype("float64")
            distances = np.sum((frame - centroids) ** 2, axis=1)
            means[b] += centroids[np.argmin(distances)] / count
    branches = {"rgb": means[:, :24], "audio": means[:, 24:]}
    check(model, inputs, resnet_like(branches, w, 1, 2))
