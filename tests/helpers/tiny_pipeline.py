"""The configuration of a small and quick pipeline."""

from typing import Any

from yt8m_tf.config import strict_yaml

DATA = {"features": {"rgb": 8, "audio": 4}, "num_classes": 10, "shuffle_shards": 2, "shuffle_records": 50}
SCHEDULE = {"schedule": {"name": "cosine"}, "optimizer": {"learning_rate": 0.03}}
SMALL = {"model": {"width": 0.02, "momentum": 0.9}, **SCHEDULE}
TINY: dict[str, Any] = {
    "num_folds": 2,
    "video": {"data": DATA},
    "train": {
        "batch_size": 32,
        "steps_per_epoch": 10,
        "epochs": 2,
        "validation_examples": None,
        "early_stopping_patience": None,
    },
    "splits": ["validation", "test"],
    "models": {
        "logistic": {"config": "first_level/logistic.yaml", "changes": SCHEDULE},
        "moe": {"config": "first_level/moe.yaml", "changes": {"model": {"num_mixtures": 2}, **SCHEDULE}},
    },
    "stack": {"num_trees": 20, "learning_rate": 0.1, "min_data_in_leaf": 5},
    "students": {
        "student": {"config": "first_level/logistic.yaml", "changes": SCHEDULE},
        "small_a": {"config": "second_level/small_nets.yaml:a", "changes": SMALL},
    },
    "final": {
        "trunks": ["small_a"],
        "teacher": "logistic",
        "changes": strict_yaml.merge(SMALL, {"model": {"trunks": ["a"], "hidden_sizes": [400]}}),
    },
}
