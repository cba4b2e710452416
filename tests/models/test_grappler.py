"""Grappler's CPU fusions, which are applied when a SavedModel is loaded."""

from __future__ import annotations

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

from yt8m_tf import models
from yt8m_tf.config.input_spec import InputSpec


@pytest.mark.parametrize(
    "model",
    [{"name": "gated_fcn", "variant": "v6", "inner_size": 16}, {"name": "resnet_like", "inner_size": 8}],
    ids=lambda model: model["name"],
)
def test_fused_nodes_have_an_operation(model: dict[str, object]) -> None:
    """A fused node without an operation makes Grappler give up on the whole function."""
    built = models.build_model(model, InputSpec(level="video", num_classes=6, features={"rgb": 16}))
    (name,) = built.input
    function = tf.function(lambda x: built({name: x}, training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec([8, 16])))
    # Grappler only fuses nodes that it knows to run on a CPU.
    with tf.Graph().as_default(), tf.device("/job:localhost/replica:0/task:0/device:CPU:0"):
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
        graph = tf.compat.v1.train.export_meta_graph()
    graph.collection_def["train_op"].node_list.value.extend(tensor.name for tensor in frozen.outputs)
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers.append("remap")
    operations = {node.name: node.op for node in tf_optimizer.OptimizeGraph(config, graph).node}
    assert "_FusedMatMul" in operations.values()
    assert [node for node, operation in operations.items() if not operation] == []
