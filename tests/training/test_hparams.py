"""A sweep in TensorBoard's HParams tab, as the plugin itself reads it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_metrics import random_metrics
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from yt8m_tf import run_dir
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.training import hparams
from yt8m_tf.training.summaries import Summaries

_ALL = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]


def _table(logdir: Path) -> tuple[api_pb2.Experiment, dict[str, api_pb2.SessionGroup]]:
    """The data of the tab: the experiment, and the rows by name."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"hparams": 0})
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    plugin = backend_context.Context(base_plugin.TBContext(data_provider=provider, logdir=str(logdir)))
    ctx = context.RequestContext()
    known = plugin.hparams_from_data_provider(ctx, "", None)
    metadata = plugin.hparams_metadata(ctx, "")
    experiment = get_experiment.Handler(ctx, plugin, "", api_pb2.GetExperimentRequest()).run()
    assert experiment == plugin.experiment_from_metadata(ctx, "", True, metadata, known)
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=_ALL, slice_size=100)
    groups = list_session_groups.Handler(ctx, plugin, "", request).run().session_groups
    return experiment, {group.name: group for group in groups}


def _values(group: api_pb2.SessionGroup) -> dict[str, float]:
    return {value.name.tag: value.value for value in group.metric_values}


def _experiment(values: dict[str, Any]) -> ExperimentConfig:
    return parse_experiment({"model": {"name": "logistic"}} | values)


def _start(workdir: Path, values: dict[str, Any], fresh: bool = True) -> Summaries:
    experiment = _experiment(values)
    run_dir.prepare(workdir, experiment)
    return Summaries(workdir, experiment, fresh)


def test_a_sweep_is_a_table_of_differences_and_best_metrics(tmp_path: Path, rng: np.random.Generator) -> None:
    rates = rng.uniform(1e-4, 1e-2, 2).tolist()
    expected = {}
    for (i, rate), fold in itertools.product(enumerate(rates), (0, 1)):
        # Directories with the same names, as for folds.
        workdir = tmp_path / f"model_{i}" / f"fold_{fold}"
        best, last = random_metrics(rng), random_metrics(rng)
        values = {"optimizer": {"learning_rate": rate}, "data": {"num_folds": 2, "fold": fold}}
        if i:
            values["model"] = {"name": "moe", "num_mixtures": 3}
        with _start(workdir, values) as summaries:
            summaries.evaluation(10, random_metrics(rng), is_best=True)
            summaries.evaluation(20, best, is_best=True)
            summaries.evaluation(30, last, is_best=False)
        expected[f"model_{i}/fold_{fold}"] = best.scalars(), rate
    keys = hparams.write_columns(tmp_path)
    assert keys == hparams.write_columns(tmp_path)  # the second call replaces the first columns
    assert not list(tmp_path.glob("events*"))  # it would appear as a run called "."
    assert len(list(tmp_path.rglob("*.columns.session"))) == 1
    experiment, rows = _table(tmp_path)
    assert keys == ["model.name", "optimizer.learning_rate", "model.num_mixtures"]
    assert experiment.metric_infos[0].name.tag == "validation_best/gap_at_20"
    assert [info.name for info in experiment.hparam_infos] == keys
    titles = {info.name.tag: info.display_name for info in experiment.metric_infos}
    assert titles["validation_best/gap_at_20"] == "GAP@20" and titles["validation_best/bce"] == "BCE"
    (interval,) = [i.domain_interval for i in experiment.hparam_infos if i.name == "optimizer.learning_rate"]
    assert (interval.min_value, interval.max_value) == (min(rates), max(rates))
    groups = {f"{tmp_path.parent.name}/{tmp_path.name}/model_{i}": i for i in (0, 1)}
    assert rows.keys() == groups.keys()
    for group, i in groups.items():
        assert [session.name for session in rows[group].sessions] == [f"model_{i}/fold_0", f"model_{i}/fold_1"]
        assert rows[group].hparams["optimizer.learning_rate"].number_value == rates[i]
        for session in rows[group].sessions:
            metrics, rate = expected[session.name]
            assert session.status == api_pb2.STATUS_SUCCESS and session.end_time_secs >= session.start_time_secs
            shown = {value.name.tag: value.value for value in session.metric_values}
            assert shown.pop("validation_best/step") == 20 and rate == rates[i]
            assert shown == pytest.approx({f"validation_best/{key}": v for key, v in metrics.items()}, rel=1e-6)
        mean = np.mean([expected[session.name][0]["gap_at_20"] for session in rows[group].sessions])
        assert _values(rows[group])["validation_best/gap_at_20"] == pytest.approx(mean, rel=1e-6)


def test_by_default_every_key_and_scalar_is_a_column(tmp_path: Path, rng: np.random.Generator) -> None:
    with _start(tmp_path / "run", {}) as summaries:
        summaries.evaluation(5, random_metrics(rng), is_best=True)
    experiment, rows = _table(tmp_path)
    assert {info.name for info in experiment.hparam_infos} == set(hparams.values_of(_experiment({})))
    assert {"validation_best/gap_at_20", "validation/gap_at_20"} <= _values(rows["run"]).keys()
    # For a single run, the columns are all keys.
    assert len(hparams.write_columns(tmp_path)) == len(experiment.hparam_infos)


def test_a_resumed_run_is_one_row_with_the_final_status(tmp_path: Path, rng: np.random.Generator) -> None:
    row, best = "run", random_metrics(rng)
    interrupted = _start(tmp_path / "run", {})
    interrupted.evaluation(10, best, is_best=True)
    with pytest.raises(KeyboardInterrupt), interrupted:
        raise KeyboardInterrupt
    assert _table(tmp_path)[1][row].sessions[0].status == api_pb2.STATUS_UNKNOWN
    with pytest.raises(InputError, match="diverged"), _start(tmp_path / "run", {}, fresh=False):
        raise InputError("diverged")
    (session,) = _table(tmp_path)[1][row].sessions
    assert session.status == api_pb2.STATUS_FAILURE
    with _start(tmp_path / "run", {}, fresh=False):
        pass
    _, rows = _table(tmp_path)
    (session,) = rows[row].sessions
    assert len(rows) == 1 and session.status == api_pb2.STATUS_SUCCESS
    assert _values(rows[row])["validation_best/gap_at_20"] == pytest.approx(best.gap, rel=1e-6)
    files = sorted(path.name.rsplit(".", 2)[-2] for path in (tmp_path / "run").glob("*.session"))
    assert files == ["end", "start"]


def test_a_run_of_an_earlier_release_resumes_in_its_directory(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "run" / "tensorboard").mkdir(parents=True)
    (tmp_path / "events.out.tfevents.1.columns.session").touch()  # where earlier releases wrote the columns
    with _start(tmp_path / "run", {}, fresh=False) as summaries:
        summaries.evaluation(5, random_metrics(rng), is_best=True)
    hparams.write_columns(tmp_path)
    assert _table(tmp_path)[1].keys() == {"run/tensorboard"}
    assert not list(tmp_path.glob("events*")) and not list((tmp_path / "run").glob("events*"))


def test_a_run_that_starts_over_shows_its_own_configuration(tmp_path: Path, rng: np.random.Generator) -> None:
    _start(tmp_path / "run", {"optimizer": {"learning_rate": 5.0}}).scalars(3, "train", {"loss": 1.0})
    with _start(tmp_path / "run", {"optimizer": {"learning_rate": 0.5}}) as summaries:
        summaries.evaluation(2, random_metrics(rng), is_best=True)
    (row,) = _table(tmp_path)[1].values()
    assert row.hparams["optimizer.learning_rate"].number_value == 0.5
    assert "train/loss" not in _values(row)


def test_paths_of_shards_are_not_hyperparameters() -> None:
    values = hparams.values_of(_experiment({}))
    assert values.keys() & {"data.train", "data.validation", "data.test", "data.fold"} == set()
    assert values["data.num_classes"] == _experiment({}).data.num_classes


def test_no_runs_give_a_one_line_error(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"--workdir=.*: no runs of yt8m-train below it; name"):
            hparams.write_columns(directory)
