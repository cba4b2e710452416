"""Every configuration, cut to a small width, learns from sample data: GAP@20 clearly above that of the class prior."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_world import MAX_FRAMES, NUM_CLASSES, SIZES, Sample
from shrink import shrink

from yt8m_tf import catalogue
from yt8m_tf.config import experiment, strict_yaml
from yt8m_tf.data.faults import Faults
from yt8m_tf.models import registry
from yt8m_tf.training import distribution
from yt8m_tf.training.loop import RunOptions, train

pytestmark = pytest.mark.usefixtures("graphs_as_traced")

BATCH_SIZE, STEPS = 64, 200
MARGIN = 0.1
# By model or configuration: tanhshrink is flat at zero, where it starts; 13 plain layers need a smaller rate.
LEARNING_RATE = {"bilinear_fcn": 1e-2, "zoo.yaml:z048_bottleneck_fcn": 1e-3}
# One neuron between input and output; 13 plain layers; and 15. The last, at full size on real records, also stays at
# the prior for at least 4,000 of its 60,000 steps (GAP@20 of 0.049, against 0.05 for the prior).
MARGINS = {"zoo.yaml:z076_gated_fcn": 0.05, "zoo.yaml:z048_bottleneck_fcn": 0.02, "zoo.yaml:z049_bottleneck_fcn": -0.1}


# One of each level. `test_contract.py` tests that every model learns a small batch; `tests/training/` tests the files
# that are read by runs with verticals, and by runs with a memory.
QUICK = ["first_level/frame_logistic.yaml", "first_level/moe.yaml"]


def small(selector: str, sample: Sample) -> experiment.ExperimentConfig:
    """The selected configuration: its model's structure, loss, mixup, optimizer, and its use of the data."""
    full = registry.load_experiment(selector)
    level = full.data.level
    rate = LEARNING_RATE.get(selector, LEARNING_RATE.get(full.model["name"], 3e-3))
    data = {
        "level": level,
        "train": f"{level}/train*.tfrecord",
        "validation": f"{level}/validate*.tfrecord",
        "features": {name: SIZES[name] for name in full.data.features},
        "num_classes": NUM_CLASSES,
        "max_frames": MAX_FRAMES,
        "verticals": sample.num_verticals if full.data.verticals else 0,
        "frames": strict_yaml.to_dict(full.data.frames),
    }
    return registry.parse_experiment(
        {
            "model": shrink(full.model),
            "data": data,
            "loss": strict_yaml.to_dict(full.loss),
            "optimizer": {"name": full.optimizer.name, "learning_rate": rate},
            "schedule": {"name": "cosine", "warmup_steps": 10},
            "train": {
                "batch_size": BATCH_SIZE,
                "mixup_alpha": full.train.mixup_alpha,
                "steps_per_epoch": STEPS,
                "epochs": 1,
            },
        }
    )


def reached_gap(run: experiment.ExperimentConfig, sample: Sample, workdir: Path) -> float:
    options = RunOptions(str(sample.directory), workdir, xla=False, progress=False)
    return train(run, options, distribution.make_strategy(), Faults()).best_gap


def check(selector: str, sample: Sample, tmp_path: Path) -> None:
    run = small(selector, sample)
    gap = reached_gap(run, sample, tmp_path / "run")
    assert gap > sample.prior_gap + MARGINS.get(selector, MARGIN), f"{gap:.3f}"


@pytest.mark.end_to_end
@pytest.mark.parametrize("selector", [QUICK[0], pytest.param(QUICK[1], marks=pytest.mark.slow)])
def test_some_configurations_learn(selector: str, sample: Sample, tmp_path: Path) -> None:
    check(selector, sample, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("selector", catalogue.selectors(experiments=False))
def test_every_configuration_learns(selector: str, sample: Sample, tmp_path: Path) -> None:
    check(selector, sample, tmp_path)


@pytest.mark.slow
def test_weak_models_are_weak(sample: Sample, tmp_path: Path) -> None:
    """Audio alone, and a bottleneck of 4 neurons, are clearly worse than the full model."""
    gaps = {
        name: reached_gap(small(f"first_level/{name}.yaml", sample), sample, tmp_path / name)
        for name in ("resnet_like_mixup", "resnet_like_audio_only", "bottleneck_4_neurons")
    }
    for name in ("resnet_like_audio_only", "bottleneck_4_neurons"):
        assert gaps[name] < gaps["resnet_like_mixup"] - 0.05, gaps
