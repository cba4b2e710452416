"""A pipeline for rated segments: its stages, and what ratings gain over labels of whole videos alone."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segments import rated_record
from shards import frame_record, write_shard
from tiny_models import NUM_CLASSES, tiny_data, tiny_model

from yt8m_tf.config import configurations, strict_yaml
from yt8m_tf.config.data import DataConfig
from yt8m_tf.data import clips, pipeline
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.shards import list_shards
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import FLOAT32
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.metrics.accumulator import average_precision, pair_keys
from yt8m_tf.pipelines import plan, runner
from yt8m_tf.pipelines.execution import Where, execute
from yt8m_tf.pipelines.settings import PipelineConfig, load_pipeline
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.stages import make_stages
from yt8m_tf.pipelines.starts import check_starts
from yt8m_tf.run_dir import read_experiment
from yt8m_tf.sample_data.dataset import Layout
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig
from yt8m_tf.sample_data.segment_dataset import write_segment_data
from yt8m_tf.training.checkpoints import load_trained

_CLASSES = 60
_MODEL = {"name": "mean_fcn", "hidden_sizes": [256], "dropout": 0.3}
_DRAWS = 1000


def _settings(seed: int, epochs: tuple[int, int] = (16, 6)) -> PipelineConfig:
    """`pipelines/segments2019.yaml` with a small model on sample data."""
    published = load_pipeline("pipelines/segments2019.yaml")
    own = {name: f"frame/{pattern}*.tfrecord" for name, pattern in (("train", "train"), ("validation", "validate"))}
    data = {**own, "test": "frame/test*.tfrecord", "features": {"rgb": 128, "audio": 16}, "num_classes": _CLASSES}
    train = {"batch_size": 128, "seed": seed, "early_stopping_patience": None, "validation_examples": None}

    def cut(model: Any, steps: int, count: int, more: dict[str, Any]) -> Any:
        changes = {
            "model": _MODEL,
            "data": {**data, "max_frames": 40, **more},
            "train": {**train, "steps_per_epoch": steps, "epochs": count},
            "optimizer": {"learning_rate": 1e-3, "clip_norm": 10.0},
        }
        return dataclasses.replace(model, config="first_level/frame_logistic.yaml", changes=changes)

    segments = {
        name: cut(model, 40, epochs[1], {"segments": {"size": 5, "context": context}})
        for (name, model), context in zip(published.segments.items(), (0, 2), strict=True)
    }
    baselines = {name: cut(model, 32, epochs[0], {}) for name, model in published.baselines.items()}
    return dataclasses.replace(published, baselines=baselines, segments=segments, export="float32")


def test_stages_of_the_published_recipe() -> None:
    stages = {stage.name: stage for stage in make_stages(load_pipeline("pipelines/segments2019.yaml"))}
    assert list(stages) == [
        *("train videos", "evaluate videos"),
        *("evaluate context_free before", "train context_free", "evaluate context_free"),
        *("evaluate context_aware before", "train context_aware", "evaluate context_aware"),
        *("export context_free", "export context_aware", "infer_segments validation", "infer_segments test"),
    ]
    check_starts(list(stages.values()))
    tuned = stages["train context_aware"]
    assert tuned.inputs == ("train videos",) and tuned.options["init_from"] == ["runs/videos"]
    assert tuned.options["experiment"]["data"]["segments"] == {"size": 5, "context": 30}
    before = stages["evaluate context_aware before"]
    assert before.options == {"run": "runs/videos", "segments": {"size": 5, "context": 30}}
    assert before.shards == tuple(tuned.options["experiment"]["data"]["validation"])
    last = stages["infer_segments test"]
    assert last.options["saved_models"] == ["exported/context_free/1", "exported/context_aware/1"]
    assert last.inputs == ("export context_free", "export context_aware") and last.output == "segments/test.csv"


def test_invalid_pipelines_of_segments() -> None:
    def fails(**changes: Any) -> str:
        values = configurations.load_yaml("pipelines/segments2019.yaml")
        with pytest.raises(InputError) as caught:
            make_stages(strict_yaml.parse(PipelineConfig, strict_yaml.merge(values, changes), ""))
        return str(caught.value)

    assert "segments.context_free.start names 'none', which is not in baselines" in fails(
        segments={"context_free": {"start": "none"}}
    )
    assert "students, final and mean need the scores of models" in fails(mean=True)
    assert "segments.context_free: its configuration has no data.segments" in fails(
        segments={"context_free": {"config": "first_level/nextvlad.yaml"}}
    )
    other = {"segments": {"context_free": {"changes": {"data": {"num_classes": 1000}}}}}
    values = strict_yaml.merge(configurations.load_yaml("pipelines/segments2019.yaml"), other)
    settings = strict_yaml.parse(PipelineConfig, values, "")
    with pytest.raises(InputError, match=r"'context_free' starts from the weights of 'videos', and needs '.*logits"):
        check_starts(make_stages(settings))
    sizes = fails(segments={"context_free": {"changes": {"data": {"segments": {"size": 4}}}}})
    assert "all windows must have the same size, but data.segments.size is 4, 5" in sizes


def test_a_plan_counts_the_frames_of_segments(tmp_path: Path) -> None:
    settings = _settings(0)
    stages = make_stages(settings)
    found = plan.costs(stages, str(tmp_path), {"train": 1000, "validation": 100})
    operations = {name: cost.operations / cost.examples for name, cost in found.items() if name.startswith("evaluate")}
    assert operations["evaluate context_free"] < operations["evaluate videos"]
    assert "infer_segments test" in plan.describe(stages, settings, str(tmp_path), tmp_path / "run", 1.0)


def test_windows_are_scored_with_the_mean_and_measured_where_there_are_ratings(tmp_path: Path, rng) -> None:
    data = tiny_data("frame")
    export_saved_model(tiny_model(data, rng), data, tmp_path / "run" / "one", precision=FLOAT32)
    frames = {name: rng.integers(0, 256, (12, size)).astype(np.uint8) for name, size in data.features.items()}
    ratings = [(0, 4, 1.0), (5, 4, 0.0), (10, 7, 1.0)]
    write_shard(tmp_path / "rated.tfrecord", [rated_record(b"a", ratings, **frames)])
    write_shard(tmp_path / "unrated.tfrecord", [frame_record(b"a", [1], **frames)])
    (tmp_path / "classes.csv").write_text("Index\n4\n7\n")
    options = {"saved_models": ["one", "one"], "size": 5, "classes": "classes.csv", "num_classes": NUM_CLASSES}
    where, results = Where(str(tmp_path), tmp_path / "run", progress=False), {}
    for name in ("rated", "unrated"):
        stage = Stage(name, "infer_segments", (), f"segments/{name}.csv", options, (f"{name}.tfrecord",))
        results[name] = execute(stage, where)
    lines = (tmp_path / "run/segments/rated.csv").read_text().splitlines()
    assert lines == (tmp_path / "run/segments/unrated.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["Class", "4", "7"]
    ranked = lines[1].split(",")[1].split()  # of class 4
    assert sorted(ranked) == ["a:0", "a:10", "a:5"]
    of_four = 1.0 if ranked.index("a:0") < ranked.index("a:5") else 0.5
    assert results["rated"]["map"] == (of_four + 1.0) / 2 and results["rated"]["videos"] == 1
    assert "map" not in results["unrated"]


def test_the_table_of_a_pipeline_without_stacking(tmp_path: Path) -> None:
    results = {
        "evaluate videos": {"gap_at_20": 0.5},
        "evaluate tuned before": {"map": 0.25},
        "evaluate tuned": {"map": 0.5},
        "infer_segments validation": {"map": 0.75, "videos": 3},
        "infer_segments test": {"videos": 3},
    }
    assert [line.split() for line in runner.summary(results, tmp_path).splitlines()][:7] == [
        ["GAP@20", "validation"],
        ["videos", "0.50000"],
        [],
        ["MAP", "of", "rated", "segments"],
        ["tuned", "before", "0.25000"],
        ["tuned", "0.50000"],
        ["mean,", "validation", "0.75000"],
    ]
    assert runner.summary({"evaluate tuned": {"map": 0.5}}, tmp_path).startswith("MAP of rated segments")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,200 training clips and 5,600 validation clips with five ratings each."""
    directory = tmp_path_factory.mktemp("sample")
    config = SampleConfig(num_classes=_CLASSES, rgb_size=128, audio_size=16)
    layout = Layout({"train": 4200, "validate": 5600, "test": 50}, 700, ("frame",))
    write_segment_data(str(directory), config, layout, FrameCounts(20, 40))
    return directory


def _rated_pairs(run: Path, data: DataConfig, directory: Path) -> dict[str, np.ndarray]:
    """The video, class, score and presence of all rated pairs, from the best checkpoint of a run."""
    trained, found = load_trained(run), collections.defaultdict(list)
    for batch in pipeline.evaluation_stream(list_shards(data.validation, str(directory)), data, 512, faults=Faults()):
        features = {name: batch[name] for name in (*data.features, "num_frames")}
        inputs = clips.decode_features(clips.prepare_clips(features, data.spec), data.spec)
        logits = trained.model(inputs, training=False).numpy()
        for row in np.flatnonzero(batch["valid"]):
            listed = batch["rated_classes"][row].numpy()
            for class_id, rating in zip(listed[listed >= 0], batch["ratings"][row].numpy(), strict=False):
                found["video"].append(batch["id"][row].numpy().rsplit(b":")[0])
                found["class"].append(class_id)
                found["score"].append(1 / (1 + np.exp(-logits[row, class_id])))
                found["present"].append(rating >= 0.5)
    return {name: np.array(values) for name, values in found.items()}


def _mean_ap(pairs: dict[str, np.ndarray], rows: np.ndarray) -> float:
    present, classes = pairs["present"][rows], pairs["class"][rows]
    positives = np.bincount(classes[present], minlength=_CLASSES)
    keys = pair_keys(pairs["score"][rows].astype(np.float32), present)
    return float(np.nanmean(average_precision(keys, classes, positives)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ratings_add_to_labels_of_videos(sample: Path, tmp_path: Path, seed: int) -> None:
    """The 95 % interval of the gain in MAP excludes 0; both models use the same bootstrap samples of videos."""
    stages = make_stages(_settings(seed))
    where = Where(str(sample), tmp_path, num_threads=2, progress=False)
    results = {stage.name: execute(stage, where) for stage in stages}
    print(runner.summary(results, tmp_path))
    data = read_experiment(tmp_path / "runs" / "context_free").data
    before, after = (_rated_pairs(tmp_path / "runs" / name, data, sample) for name in ("videos", "context_free"))
    every = np.arange(len(before["video"]))
    assert _mean_ap(before, every) == pytest.approx(results["evaluate context_free before"]["map"], abs=1e-4)
    assert _mean_ap(after, every) == pytest.approx(results["evaluate context_free"]["map"], abs=1e-4)
    _, video_of = np.unique(before["video"], return_inverse=True)
    rows_of = np.split(np.argsort(video_of, kind="stable"), np.cumsum(np.bincount(video_of))[:-1])
    rng, gains = np.random.default_rng(0), []
    for _ in range(_DRAWS):
        rows = np.concatenate([rows_of[video] for video in rng.integers(len(rows_of), size=len(rows_of))])
        gains.append(_mean_ap(after, rows) - _mean_ap(before, rows))
    low, high = np.quantile(gains, [0.025, 0.975])
    print(f"seed {seed}: gain {_mean_ap(after, every) - _mean_ap(before, every):.4f}, 95 %: {low:.4f} to {high:.4f}")
    assert low > 0
    assert results["infer_segments validation"]["map"] > results["evaluate context_free before"]["map"]
