"""Benchmark of boosted trees in TensorFlow's own operations against LightGBM's prediction, for 1,024 videos."""

from __future__ import annotations

if not __package__:
    raise SystemExit("not a command; run python tools/benchmark.py")

import lightgbm
import numpy as np
import tensorflow as tf

from benchmarks.harness import Measurement, Options, Target, Variant, measure
from benchmarks.report import Result
from benchmarks.stack_data import CLASSES, make_scores
from yt8m_tf.layers.trees import BoostedTrees
from yt8m_tf.stacking import boosting
from yt8m_tf.stacking.features import candidates, feature_names, features
from yt8m_tf.stacking.forest import make_forest
from yt8m_tf.stacking.settings import StackConfig

_OURS, _LIGHTGBM = "layers.trees", "Booster.predict"
_AT_LEAST, _THREADS, _MODELS = 0.2, 2, 7


def run(options: Options) -> Result:
    """Measures the rate of one booster with LightGBM's default size."""
    videos, trees = (20, 3) if options.quick else (1024, 200)
    rng = np.random.default_rng(0)
    config = StackConfig(learning_rate=0.08, num_trees=trees, cat_smooth=100.0, cat_l2=100.0, early_stopping=0)
    rows, booster = make_rows(videos, config, rng)
    forest = make_forest([booster])
    leaves, table_bytes = np.count_nonzero(forest.leaf_values), forest.shape.table_bytes
    workload = {
        "videos": f"{videos:,}, {len(rows):,} rows of {rows.shape[1]} features",
        "trees": f"{trees}, {leaves:,} leaves; tables of {table_bytes:,} bytes",
        "threads": f"{_THREADS} of LightGBM; of TensorFlow one for each core",
    }
    remarks = ["Rows are candidates of seven models whose made-up scores agree in part; labels depend on classes, too."]
    return Result([measure_trees(rows, videos, booster, options)], [], workload, remarks)


def make_rows(videos: int, config: StackConfig, rng: np.random.Generator) -> tuple[np.ndarray, lightgbm.Booster]:
    """Makes feature rows [R, F] float32, class first, and a booster that is trained on them."""
    scores = make_scores(videos, _MODELS, rng)
    owners, classes = candidates(scores, config.num_candidates, CLASSES)
    values = features(scores, owners, classes, CLASSES, config).astype(np.float32)
    rows = np.concatenate([classes[:, None].astype(np.float32), values], axis=1)
    of_class = rng.gamma(2.0, 4.0, CLASSES)[classes]
    labels = rng.random(len(rows)) < np.minimum(of_class * np.nan_to_num(values[:, :_MODELS]).mean(axis=1), 0.9)
    names = feature_names([f"m{number}" for number in range(_MODELS)], config)
    data = lightgbm.Dataset(
        rows.astype(np.float64),
        labels,
        feature_name=[boosting.CLASS_COLUMN, *map(boosting.plain, names)],
        categorical_feature=[boosting.CLASS_COLUMN],
        params={"verbosity": -1},
    )
    return rows, lightgbm.train(boosting.parameters(config, len(names), _THREADS), data, config.num_trees)


def measure_trees(rows: np.ndarray, videos: int, booster: lightgbm.Booster, options: Options) -> Measurement:
    """Times both implementations on the same rows."""
    forest = make_forest([booster])
    layer = BoostedTrees(forest.shape)
    layer.assign(forest)
    function, given, matrix = tf.function(layer), tf.constant(rows), rows.astype(np.float64)

    def ours(passes: int) -> int:
        for _ in range(passes):
            function(given).numpy()
        return videos * passes

    def theirs(passes: int) -> int:
        for _ in range(passes):
            booster.predict(matrix, num_threads=_THREADS)
        return videos * passes

    np.testing.assert_allclose(function(given)[:, 0], booster.predict(matrix, num_threads=_THREADS), rtol=0, atol=1e-9)
    ways = [
        Variant(_OURS, "float32 rows in memory to probabilities", ours),
        Variant(_LIGHTGBM, "float64 rows in memory, as it takes them, to probabilities", theirs),
    ]
    return measure("boosted trees", "videos/s", ways, [Target(_OURS, _LIGHTGBM, _AT_LEAST)], options)
