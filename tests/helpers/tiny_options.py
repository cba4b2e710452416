"""Options that make each registered model small, for the contract test."""

import numpy as np

# As part of another model; alone it is tested with blocks.
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
    "time_distributed_conv": {
        "av_kernel_sizes": [2],
        "av_pool_sizes": [2],
        "rgb_channels": [16],
        "audio_channels": [8],
        "concat_kernel_sizes": [1, 1],
        "concat_pool_sizes": [2],
        "concat_channels": [12, 16],
    },  # no frame of a clip of 9 is left over at a pool
    "time_distributed_dense_max": {"rgb_size": 64, "audio_size": 6, "resnet": _RESNET | {"dropout": 0.1}},
    "time_distributed_dense_sort": {"hidden_size": 8, "dropout": 0.1, "resnet": _RESNET | {"dropout": 0.1}},
    "transformer": {"inner_size": 8, "num_layers": 2, "num_heads": 3, "dropout": 0.1, "max_length": 9},
    "vlad_bow": {"n_clusters": 6, "resnet": _RESNET | {"dropout": 0.1}},
    "weighted_mean": {"members": [{"name": "logistic"}, {"name": "moe", "num_mixtures": 3}], "weights": [1.0, 3.0]},
}
# The models that stand for the others where a test of every one takes too long for `make test`, each for what it alone
# has: batch normalisation on the mean frame; statistics of clips, normalised by real frames; recurrence; a memory;
# sorting and recomputation; a model of models; tags; weights that are not trained.
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
# Graphs are exported alike; recurrence, attention and sorting are operations like others there.
EXPORTED = REPRESENTATIVES - {("rnn", "frame"), ("time_distributed_dense_sort", "frame"), ("transformer", "frame")}
# Replicas train alike but for what goes over the batch, or is not trained. (What else does, sorted scores, the tests of
# its layer see.)
REPLICATED = {
    ("dbof", "frame"),
    ("nearest_neighbors", "frame"),
    ("weighted_mean", "frame"),
}
# XLA takes longest; layers are compiled by their own tests.
COMPILED = {("dbof", "frame"), ("gated_fcn", "video"), ("nearest_neighbors", "frame")}
# Options beside these at frame level, where they can only be used there.
FRAME_OPTIONS = {"resnet_like": {"statistics": ["mean", "std", "min", "max", "median", "mode"]}}
# Tags of the models that need some.
NUM_TAGS = {"resnet_ff_hierarchy": 3, "resnet_rep_rnn_hierarchy": 3, "resnet_rnn_hierarchy": 3}
# The probability that a model starts from where it is not the prior p itself.
STARTING_PROBABILITY = {
    "moe": lambda p: p * 3 / 4,  # the dummy, one of four equal experts, says no
    "nearest_neighbors": lambda p: p / 10,  # nothing is remembered yet: nine tenths are the votes of nobody
    "netfv": lambda p: p * 2 / 3,  # here one of three
    "netrvlad": lambda p: p * 2 / 3,
    "netvlad": lambda p: p * 2 / 3,
    "ranking_fcn": lambda p: np.full_like(p, p.mean()),  # one bias for all classes
    "rnn": lambda p: p * 2 / 3,
    "soft_dbof": lambda p: p * 2 / 3,
    "time_distributed_dense_sort": lambda p: np.full_like(p, p.mean()),
    "weighted_mean": lambda p: p * (1 / 4 + 3 / 4 * 3 / 4),  # logistic, and moe as above
}
