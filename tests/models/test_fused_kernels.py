"""Recurrent models use cuDNN on a GPU: Keras's choice, tested without a GPU."""

import collections

import pytest
import tensorflow as tf

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model

FEATURES, NUM_CLASSES, MAX_FRAMES = {"rgb": 24, "audio": 10}, 11, 13


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ({"name": "early_concat_rnn", "num_layers": 3, "hidden_size": 4, "dense": True}, 3),
        ({"name": "lstm_bi_attention"}, 4),
        ({"name": "rnn", "cell": "gru", "hidden_sizes": [4, 4], "bidirectional_layers": 1, "late_fusion": True}, 6),
    ],
)
def test_all_frames_run_on_cudnn_on_a_gpu(options, kernels, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: [tf.config.LogicalDevice("/device:GPU:0", "GPU")])
    model = build_model(options, InputSpec("frame", FEATURES, NUM_CLASSES, MAX_FRAMES))
    signature = {name: tf.TensorSpec((2, MAX_FRAMES, size)) for name, size in FEATURES.items()}
    signature["num_frames"] = tf.TensorSpec((2,), tf.int32)
    graph = tf.function(model).get_concrete_function(signature).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    operations = collections.Counter(node.op for node in nodes)
    assert operations["CudnnRNNV3"] == kernels
    assert not [name for name in operations if "While" in name]
