"""The residual network, also over frame statistics, against an independent NumPy forward pass (see `reference`)."""

import numpy as np
import pytest
from reference import BATCH_SIZE, FEATURES, NUM_CLASSES, check, prepare, resnet_like

from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.models import build_model

NUM_TAGS = 4


def plain_mode(values):
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]


@pytest.mark.parametrize(
    "options",
    [
        {"av_blocks": 1, "concat_blocks": 1},
        {"av_blocks": 3, "concat_blocks": 2, "video_part": 5, "audio_part": 3, "context_gating": True},
        {"av_blocks": 0, "concat_blocks": 0},
    ],
)
def test_resnet_like(options, rng):
    model, inputs, w = prepare({"name": "resnet_like", "inner_size": 16, **options}, "video", rng)
    gate = options.get("context_gating", False)
    check(model, inputs, resnet_like(inputs, w, options["av_blocks"], options["concat_blocks"], gate))
    rgb_width = 32 * options.get("video_part", 1) // (options.get("video_part", 1) + options.get("audio_part", 1))
    assert w["rgb_fc_dense/kernel"].shape == (24, rgb_width)
    assert w["audio_fc_dense/kernel"].shape == (10, 32 - rgb_width)
    assert w["concat_fc_dense/kernel"].shape == (32, 16)


def test_resnet_like_on_one_modality(rng):
    model = build_model({"name": "resnet_like", "inner_size": 16}, InputSpec("video", {"rgb": 24}, NUM_CLASSES))
    w = {variable.path: np.asarray(variable, "float64") for variable in model.weights}
    inputs = {"rgb": rng.normal(size=(BATCH_SIZE, 24)).astype("float32")}
    check(model, inputs, resnet_like(inputs, w, 1, 1))


@pytest.mark.parametrize("statistics", [("mean",), ("mean", "std"), ("mode", "max", "median", "min")])
def test_resnet_like_over_statistics(statistics, rng):
    options = {"name": "resnet_like", "inner_size": 16, "av_blocks": 2, "statistics": list(statistics)}
    model, inputs, w = prepare(options, "frame", rng)
    branches = {}
    for name in FEATURES:
        inputs[name] = np.round(inputs[name] * 2) / 2  # to get equal values
        rows = []
        for clip, count in zip(inputs[name].astype("float64"), inputs["num_frames"], strict=True):
            functions = [plain_mode if s == "mode" else getattr(np, s) for s in statistics]
            rows.append([function(column) for function in functions for column in clip[:count].T])
        branches[name] = np.array(rows)
    check(model, inputs, resnet_like(branches, w, 2, 1))
    assert w["rgb_fc_dense/kernel"].shape == (len(statistics) * 24, 16)


def test_any_model_predicts_tags_beside_the_classes(rng):
    model, inputs, w = prepare({"name": "resnet_like", "inner_size": 16}, "video", rng, NUM_TAGS)
    assert model(inputs).shape == (BATCH_SIZE, NUM_CLASSES + NUM_TAGS)
    assert w["logits/kernel"].shape == (16, NUM_CLASSES + NUM_TAGS)
