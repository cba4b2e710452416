"""The configurations that come with the project."""

from pathlib import Path

import keras
import pytest

from yt8m_tf import config, experiment
from yt8m_tf.models import build_model

CONFIG_DIR = Path(config.__file__).resolve().parents[1] / "configs" / "first_level"
PATHS = sorted(CONFIG_DIR.glob("*.yaml"))
every_config = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def without_each_key(values, where=""):
    """(dotted key, `values` without it) for every number, text or list in nested mappings."""
    for key, value in values.items():
        if isinstance(value, dict):
            for name, rest in without_each_key(value, f"{where}{key}."):
                yield name, values | {key: rest}
        else:
            yield f"{where}{key}", {other: kept for other, kept in values.items() if other != key}


def test_there_are_configurations():
    assert PATHS


@every_config
def test_describes_a_model_that_can_be_built(path):
    run = experiment.load_experiment(str(path))
    with keras.StatelessScope(initialize_variables=False):  # no memory for the weights
        model = build_model(run.model, run.data.spec)
    assert model.output_shape == (None, run.data.num_classes)


@every_config
def test_states_only_what_differs_from_the_defaults(path):
    values = config.load_yaml(str(path))
    complete = experiment.parse_experiment(values)
    for key, rest in without_each_key(values):
        if key != "model.name":
            assert experiment.parse_experiment(rest) != complete, f"{key} has its default"
