"""Models of classes and verticals against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import BATCH_SIZE, NUM_CLASSES, check, dense, fc_block, prepare, relu, res_block, run_both_ways

NUM_TAGS = 4
KERAS_NAMES = {"rnn": "simple_rnn", "gru": "gru", "lstm": "lstm"}


def trunk(inputs, w):
    """A resnet_like of one block in each place, followed by Dense and ReLU."""
    branches = [res_block(fc_block(inputs[n], w, f"{n}_fc"), w, f"{n}_res1") for n in ("audio", "rgb")]
    x = res_block(np.concatenate(branches, axis=1), w, "concat_res1")
    return relu(dense(fc_block(x, w, "concat_fc"), w, "trunk_dense"))


def bidirectional(verticals, classes, w, kind):
    """The outputs at both levels: the forward direction reads verticals first, the backward direction classes first."""
    return run_both_ways([verticals, classes], w, kind, "levels")[0]


def test_ff_hierarchy(rng):
    options = {"name": "resnet_ff_hierarchy", "inner_size": 9, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare(options, "video", rng, NUM_TAGS)
    x = trunk(inputs, w)
    tags = dense(x, w, "tag_logits")
    classes = dense(np.concatenate([x, tags], axis=1), w, "logits")
    assert tags.shape == (BATCH_SIZE, NUM_TAGS) and classes.shape == (BATCH_SIZE, NUM_CLASSES)
    check(model, inputs, np.concatenate([classes, tags], axis=1))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rnn_hierarchy(cell, rng):
    options = {"name": "resnet_rnn_hierarchy", "inner_size": 9, "hidden_size": 6, "resnet": {"inner_size": 16}}
    model, inputs, w = prepare(options | {"cell": cell}, "video", rng, NUM_TAGS)
    x = trunk(inputs, w)
    verticals, classes = bidirectional(x, x, w, KERAS_NAMES[cell])
    check(model, inputs, np.concatenate([dense(classes, w, "logits"), dense(verticals, w, "tag_logits")], axis=1))


@pytest.mark.parametrize("repeats", [1, 3])
def test_rep_rnn_hierarchy(repeats, rng):
    options = {"name": "resnet_rep_rnn_hierarchy", "inner_size": 9, "hidden_size": 6, "repeats": repeats}
    model, inputs, w = prepare(options | {"resnet": {"inner_size": 16}}, "video", rng, NUM_TAGS)
    verticals = classes = dense(trunk(inputs, w), w, "levels_dense")
    for _ in range(repeats):
        verticals, classes = bidirectional(verticals, classes, w, "simple_rnn")
    check(model, inputs, np.concatenate([dense(classes, w, "logits"), dense(verticals, w, "tag_logits")], axis=1))
