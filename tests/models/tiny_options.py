"""Options that make each registered model small, for the contract test."""

# Model name to options that make it small.
OPTIONS = {
    "linear_combinations": {"head_size": 2, "dropout": 0.1, "resnet": {"inner_size": 8, "dropout": 0.1}},
    "logistic": {},
    "mean_fcn": {"hidden_sizes": [9, 8]},
    "moe": {"num_mixtures": 3},
    "resnet_like": {"inner_size": 8, "av_blocks": 2, "concat_blocks": 2, "video_part": 3, "dropout": 0.1},
}
# The probability that a model starts from where it is not the prior p itself.
STARTING_PROBABILITY = {"moe": lambda p: p * 3 / 4}  # the dummy, one of four equal experts, says no
