"""Options from which no model can be built give one-line errors that name the key."""

import pytest

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.errors import InputError
from yt8m_tf.models import build_model, model_config, registry

WRONG = {
    "attention_net": [({"num_layers": 10, "layer_dropout": True}, "num_layers must be at most 9 with layer_")],
    "bilinear_fcn": [
        ({"first_rgb": 25}, "'model.first_rgb': 25 is more than the 24 rgb values"),
        ({"first_rgb": 0}, "first_rgb must be at least 1, got 0"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
    "bottleneck_fcn": [({"start_size": 24, "depth": 4}, r"multiple of 2 \*\* depth = 16, .* got 24")],
    "cyclic_fcn": [({"repeats": 0}, "repeats must be at least 1, got 0")],
    "dbof": [({"pooling": "sum"}, "'model.pooling'.* one of max, average")],
    "early_concat_rnn": [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"cell": "rnn"}, "model.cell.*one of lstm, gru"),
    ],
    "fcn": [({"hidden_sizes": [3, 0]}, r"hidden_sizes must be at least 1, got \(3, 0\)")],
    "final_network": [({"trunks": ["a", "a"]}, "different trunks, got a, a")],
    "gated_fcn": [
        ({"variant": "v8"}, "'v8' is not one of v1, v2"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
    ],
    "kernel_ridge": [
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"ridge": 0}, "gamma, ridge and shares must be above 0"),
        ({"shares": {"sound": 0.5}}, r"'model.shares': the data has no feature 'sound' \(known: rgb, audio\)"),
    ],
    "linear_combinations": [
        ({"resnet": {"audio_part": 0}}, "'model.resnet': audio_part must be at least 1"),
        ({"head_size": 0}, "head_size must be at least 1, got 0"),
        ({"resnet": {"statistics": "mean"}}, "unknown key 'model.resnet.statistics'"),
    ],
    "logistic": [({"l2": -1}, "l2 must be at least 0, got -1")],
    "lstm_bi_attention": [({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0")],
    "mean_fcn": [({"hidden_sizes": [4, 0]}, r"hidden_sizes must be at least 1, got \(4, 0\)")],
    "moe": [({"num_mixtures": 0}, "num_mixtures must be at least 1, got 0")],
    "nearest_neighbors": [
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"shares": {"audio": 0}}, "temperature, sharpness and shares must be above 0"),
        ({"shares": {"sound": 0.5}}, r"'model.shares': the data has no feature 'sound' \(known: rgb, audio\)"),
    ],
    "netfv": [({"head": {"name": "svm"}}, "'model.head.name'.* one of logistic, moe")],
    "netvlad": [({"cluster_size": 3}, "'model': cluster_size must be at least 4, got 3")],
    "nextvlad": [
        ({"hidden_size": 8}, "hidden_size must be at least twice gating_reduction = 8, got 8"),
        ({"groups": 5}, "'model.groups': 48 values of feature 'rgb' .* into 5 equal groups"),
    ],
    "repeat_rnn": [
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"cell": "rnn"}, "'model.cell': 'rnn' is not one of gru, lstm"),
    ],
    "resnet_ff_hierarchy": [
        ({}, r"'data.verticals': model 'resnet_ff_hierarchy' predicts .*, 25 in YouTube-8M"),
        ({"inner_size": 0}, "inner_size must be at least 1, got 0"),
        ({"resnet": {"context_gating": True}}, "resnet.context_gating .* turn it off"),
    ],
    "resnet_like": [
        ({"inner_size": 8, "video_part": 2}, "configuration key 'model': branch widths must be"),
        ({"inner_size": 0}, "inner_size must be at least 1, got 0"),
        ({"av_blocks": -1}, "av_blocks must be at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"statistics": []}, r"'model': statistics must have at least one name, .*, got \[\]"),
        ({"statistics": ["std", "std"]}, r"each name once, got \['std', 'std'\]"),
        ({"statistics": ["sum"]}, r"'model.statistics\[0\]': 'sum' is not one of mean, std"),
        ({"statistics": ["mean", "std"]}, r"'model.statistics': .*\(data.level=frame\)"),
    ],
    "resnet_like_noise": [
        ({"noise_scale": -1}, "noise_scale must be at least 0, got -1"),
        ({"noise_position": "first"}, "'first' is not one of before_bn, after_bn"),
    ],
    "resnet_rep_rnn_hierarchy": [
        ({}, "'data.verticals': model 'resnet_rep_rnn_hierarchy'"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
    ],
    "resnet_rnn_hierarchy": [
        ({}, "'data.verticals': model 'resnet_rnn_hierarchy'"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
    ],
    "rnn": [
        ({"hidden_sizes": []}, r"hidden_sizes must contain numbers from 1, one for each layer, got \(\)"),
        ({"hidden_sizes": [4, 0]}, r"hidden_sizes must contain numbers from 1, one for each layer, got \(4, 0\)"),
        ({"hidden_sizes": [7, 4], "bidirectional_layers": 1}, "must be even .*, got 7"),
        ({"bidirectional_layers": 3}, "must be at most the number of layers, got 3"),
        ({"cell": "gru", "cell_state": True}, "cell_state must be false with cell gru"),
        ({"feature_hidden_sizes": {"audio": [8]}}, "feature_hidden_sizes needs late_fusion"),
    ],
    "small_net": [
        ({"width": 0.0}, "width must be positive"),
        ({"variant": "g"}, "model.variant"),
    ],
    "soft_dbof": [({"cluster_size": 8}, "'model': cluster_size must be at least 16, got 8")],
    "sparse_kernel_ridge": [
        ({"centres": 0}, "centres must be at least 1, got 0"),
        ({"capacity": 70_000}, "capacity must be at most 65,536, got 70,000"),
        ({"gamma": -1}, "gamma, ridge and shares must be above 0"),
    ],
    "time_distributed_conv": [
        ({"rgb_channels": [8]}, "rgb_channels must have 2 numbers, to match av_ker"),
        ({"concat_pool_sizes": [2, 2]}, "concat_pool_sizes must have 1 numbers"),
        ({"concat_kernel_sizes": []}, "concat_kernel_sizes must name at least one"),
        ({"activation": "tanh"}, "activation"),
    ],
    "transformer": [({"num_heads": 0}, "num_heads must be at least 1, got 0")],
    "vlad_bow": [
        ({"power": -1}, "'model': power must be at least 0, got -1"),
        ({"dropout": 1}, r"dropout must lie in \[0, 1\), got 1"),
    ],
    "weighted_mean": [
        ({"members": []}, "members must name at least one"),
        (
            {"members": [{"name": "logistic"}], "weights": [1.0, 2.0]},
            "weights must have one number for each member, 1, got 2",
        ),
        ({"members": [{"name": "logistic"}], "weights": [0.0]}, "not all 0"),
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_give_a_one_line_error(name):
    spec = InputSpec(registry.registration(name).levels[0], {"rgb": 24, "audio": 10}, 11)
    for options, message in WRONG[name]:
        with pytest.raises(InputError, match=message) as error:
            build_model({"name": name, **options}, spec)
        assert "\n" not in str(error.value)


def test_partial_sections_keep_the_defaults_of_their_model():
    head_config = model_config({"name": "netvlad", "head": {"num_mixtures": 4}}).head
    assert (head_config.name, head_config.num_mixtures) == ("moe", 4)
    assert (head_config.l2, head_config.context_gating) == (1e-6, True)
    assert model_config({"name": "vlad_bow", "resnet": {"av_blocks": 2}}).resnet.inner_size == 1024
