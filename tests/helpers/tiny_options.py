"""Options that make each registered model small, for the contract test."""

import numpy as np

# Options of resnet_like as a part of another model; as a separate model it is tested with blocks.
_RESNET = {"inner_size": 8, "av_blocks": 0, "concat_blocks": 0}
# Model name to options that make it small.
OPTIONS = {
    "attention_net": {"hidden_size": 7, "dropout": 0.1, "layer_dropout": True, "hidden_sizes": [9, 8]},
    "bilinear_fcn": {"rank": 5, "inner_size": 8, "dropout": 0.1, "second": True},
    "bottleneck_fcn": {"start_size": 16, "depth": 1},
    "cluster_resnet": {"num_clusters": 200, "resnet": _RESNET | {"dropout": 0.1}},
    "cyclic_fcn": {"inner_size": 8, "repeats": 2},
    "dbof": {"cluster_size": 64, "hidden_size": 32, "head": {"name": "logistic"}},
    "early_concat_rnn": {"hidden_size": 6, "dense": True, "hidden_sizes": [9]},
    "fcn": {"hidden_sizes": [9, 8], "dropout": 0.1},
    "final_network": {"trunks": ["a", "c", "f"], "hidden_sizes": [900, 700], "width": 0.01},
    "gated_fcn": {"variant": "v7", "inner_size": 8, "dropout": 0.1},
    "kernel_ridge": {"capacity": 40},
    "linear_combinations": {"head_size": 2, "dropout": 0.1, "resnet": _RESNET | {"dropout": 0.1}},
    "logistic": {},
    "lstm_bi_attention": {"hidden_sizes": [9, 8]},
    "mean_fcn": {"hidden_sizes": [9, 8]},
    "moe": {"num_mixtures": 3},
    "nearest_neighbors": {"capacity": 40, "num_neighbors": 5, "temperature": 2.0},
    "netfv": {"cluster_size": 4, "hidden_size": 8, "head": {"context_gating": False}},
    "netrvlad": {"cluster_size": 6, "hidden_size": 8, "late_fusion": False, "head": {"context_gating": False}},
    "netvlad": {"cluster_size": 6, "hidden_size": 8, "head": {"context_gating": False}},
    "nextvlad": {"cluster_size": 6, "groups": 4, "hidden_size": 16, "gating_reduction": 1, "dropout": 0.1},
    "ranking_fcn": {"inner_size": 8},
    "repeat_rnn": {"hidden_size": 6, "num_layers": 2, "repeats": 3},
    "resnet_ff_hierarchy": {"inner_size": 7, "resnet": _RESNET | {"dropout": 0.1}},
    "resnet_like": {"inner_size": 8, "av_blocks": 2, "concat_blocks": 2, "video_part": 3, "dropout": 0.1},
    "resnet_like_noise": {"inner_size": 8, "dropout": 0.1, "noise_scale": 0.1, "noise_position": "before_bn"},
    "resnet_rep_rnn_hierarchy": {"inner_size": 7, "hidden_size": 5, "repeats": 2, "resnet": _RESNET},
    "resnet_rnn_hierarchy": {"inner_size": 7, "hidden_size": 5, "resnet": _RESNET | {"dropout": 0.1}},
    "rnn": {"hidden_sizes": [8, 6], "bidirectional_layers": 1, "input_projection": True, "cell_state": True},
    "small_net": {"variant": "d", "width": 0.01},
    "soft_dbof": {"cluster_size": 24, "hidden_size": 8, "head": {"context_gating": False}},
    "sparse_kernel_ridge": {"capacity": 40, "components": 12, "centres": 9, "duals_per_video": 4},
    "time_distributed_conv": {
        "av_kernel_sizes": [2],
        "av_pool_sizes": [2],
        "rgb_channels": [16],
        "audio_channels": [8],
        "concat_kernel_sizes": [1, 1],
        "concat_pool_sizes": [2],
        "concat_channels": [12, 16],
    },  # pools divide a clip of 9 frames without remainder
    "time_distributed_dense_max": {"rgb_size": 64, "audio_size": 6, "resnet": _RESNET | {"dropout": 0.1}},
    "time_distributed_dense_sort": {"hidden_size": 8, "dropout": 0.1, "resnet": _RESNET | {"dropout": 0.1}},
    "transformer": {"inner_size": 8, "num_layers": 2, "num_heads": 3, "dropout": 0.1, "max_length": 9},
    "vlad_bow": {"n_clusters": 6, "resnet": _RESNET | {"dropout": 0.1}},
    "weighted_mean": {"members": [{"name": "logistic"}, {"name": "moe", "num_mixtures": 3}], "weights": [1.0, 3.0]},
}
# The models that represent all others if a test of every model takes too long for `make test`. Each has something that
# others lack: batch normalisation on the mean frame; statistics of clips, normalised by real frames; recurrence; a
# memory; sorting and recomputation; a model of models; tags; weights that are not trained.
REPRESENTATIVES = {
    ("dbof", "frame"),
    ("gated_fcn", "video"),
    ("nearest_neighbors", "frame"),
    ("resnet_ff_hierarchy", "video"),
    ("rnn", "frame"),
    ("time_distributed_dense_sort", "frame"),
    ("transformer", "frame"),
    ("weighted_mean", "frame"),
}
# For export, recurrence, attention and sorting are operations like all others.
EXPORTED = REPRESENTATIVES - {("rnn", "frame"), ("time_distributed_dense_sort", "frame"), ("transformer", "frame")}
# Replicas differ only in operations over the batch and in weights that are not trained. (Sorted scores also go over the
# batch, but the tests of their layer cover that.)
REPLICATED = {
    ("dbof", "frame"),
    ("nearest_neighbors", "frame"),
    ("weighted_mean", "frame"),
}
# XLA takes longest, and the tests of layers compile them, too.
COMPILED = {("dbof", "frame"), ("gated_fcn", "video"), ("nearest_neighbors", "frame")}
# Further options that can only be used at frame level.
FRAME_OPTIONS = {"resnet_like": {"statistics": ["mean", "std", "min", "max", "median", "mode"]}}
# Numbers of tags of the models that need some.
NUM_TAGS = {"resnet_ff_hierarchy": 3, "resnet_rep_rnn_hierarchy": 3, "resnet_rnn_hierarchy": 3}
# The initial probability of models that do not start from the prior p itself.
STARTING_PROBABILITY = {
    # The memory is empty; log-odds l of the prior become -0.65 l - 16.
    "kernel_ridge": lambda p: 1 / (1 + np.exp(16 + 0.65 * np.log(p / (1 - p)))),
    "moe": lambda p: p * 3 / 4,  # the dummy, one of four equal experts, predicts 0
    "nearest_neighbors": lambda p: p / 10,  # the memory is empty, so the votes of neighbours, nine tenths, are 0
    "netfv": lambda p: p * 2 / 3,  # the dummy is one of three experts here
    "netrvlad": lambda p: p * 2 / 3,
    "netvlad": lambda p: p * 2 / 3,
    "ranking_fcn": lambda p: np.full_like(p, p.mean()),  # one bias for all classes
    "rnn": lambda p: p * 2 / 3,
    "soft_dbof": lambda p: p * 2 / 3,
    "sparse_kernel_ridge": lambda p: 1 / (1 + np.exp(8.3 - 0.1 * np.log(p / (1 - p)))),  # as kernel_ridge
    "time_distributed_dense_sort": lambda p: np.full_like(p, p.mean()),
    "weighted_mean": lambda p: p * (1 / 4 + 3 / 4 * 3 / 4),  # logistic, and moe as above
}
