"""Runs as TensorBoard's HParams tab knows them: a session each, and the columns of a sweep.

A run writes its session itself; the folds of a model are one group, a row with the means of their metrics. The columns
of a table of several runs are written once for all of them (`write_columns`), into the first: a directory of their own
would be one more run. Without them TensorBoard takes every key and every scalar for a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams import api_pb2, summary

from yt8m_tf import run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.errors import InputError
from yt8m_tf.metrics.accumulator import TITLES

# The scalars of the best evaluation so far: the last value of each is what the table shows, which takes nothing but
# scalars. As charts they say little: the name puts them behind those of training and validation.
BEST = "validation_best"
# What the names of event files end with that are written anew, not added to.
START, END, _COLUMNS = ".start.session", ".end.session", ".columns.session"
_STATUS = {"success": api_pb2.STATUS_SUCCESS, "failure": api_pb2.STATUS_FAILURE}
_ABSENT = object()
# Where shards are, and which fold is held out, says nothing of how a model was trained.
_PLACES = ("data.train", "data.validation", "data.test", "data.fold")
# The columns that come first, sorted as TensorBoard sorts them.
_FIRST = ("model.name", "optimizer.learning_rate", "train.batch_size", "train.mixup_alpha")


def session_start(experiment: ExperimentConfig, group: str = "") -> bytes:
    """A serialized summary of the configuration.

    Args:
      experiment: the run's.
      group: runs of one group are one row, with the means of their metrics; "": a row named after the run.
    """
    # Not `hparams.hparams`: that makes groups of the runs with equal values, in whatever directories they are.
    return summary.session_start_pb(values_of(experiment), group_name=group).SerializeToString()


def group_of(workdir: Path, experiment: ExperimentConfig) -> str:
    """The group of a run in `fold_<f>/`, after the three directories that it lies in; "" for any other run."""
    if not experiment.data.num_folds or workdir.name != f"fold_{experiment.data.fold}":
        return ""
    return "/".join(workdir.resolve().parent.parts[-3:])


def session_end(status: str) -> bytes:
    """A serialized summary that the run has ended, with "success" or "failure"."""
    return summary.session_end_pb(_STATUS[status]).SerializeToString()


def values_of(experiment: ExperimentConfig) -> dict[str, bool | int | float | str]:
    """The hyperparameters of a run: its configuration by dotted keys, without the places of shards and the fold."""
    return {key: value for key, value in flatten(strict_yaml.to_dict(experiment)).items() if key not in _PLACES}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Dotted keys to values that the HParams plugin takes; what is None is left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            flat[prefix + key] = value
        elif value is not None:
            flat[prefix + key] = str(value)
    return flat


def write_columns(directory: Path) -> list[str]:
    """Writes what the columns of the runs below `directory` are: the keys in which they differ, and the best metrics.

    Model, learning rate, batch size and mixup's alpha come first among the keys, GAP@20 among the metrics.
    Of a single run, or of equal ones, all keys. To be called again when runs were added; a TensorBoard that is running
    keeps what it has read.

    Returns:
      The keys.

    Raises:
      InputError: there are no runs, or the directory cannot be written to.
    """
    paths = list(_runs(directory))
    runs = [values_of(run_dir.read_experiment(path)) for path in paths]
    if not runs:
        raise InputError(f"--workdir={directory}: no runs of yt8m-train below it; name the directory that holds them")
    keys = sorted(set().union(*runs), key=lambda key: (key not in _FIRST, key))
    different = [key for key in keys if len({_comparable(run.get(key, _ABSENT)) for run in runs}) > 1]
    shown = different or keys
    # TensorBoard shows first the columns that "differ", which here are those that people look for, each by their names.
    first = [key for key in shown if key in _FIRST] or shown
    infos = [_column(key, [run[key] for run in runs if key in run], key in first) for key in shown]
    content = summary.experiment_pb(infos, [metric.as_proto() for metric in _metrics()]).SerializeToString()
    places = [run_dir.event_directory(path) for path in paths]
    for place in (directory, *places):  # earlier releases wrote them into the directory
        remove_events(place, _COLUMNS)
    replace_events(places[0], _COLUMNS, [content])
    return shown


def replace_events(directory: Path, suffix: str, summaries: Sequence[bytes]) -> None:
    """Writes serialized summaries, at step 0, into an event file instead of those that end with `suffix`.

    TensorBoard keeps the first of several summaries of these kinds, which are not to be added to.

    Raises:
      InputError: the directory cannot be written to.
    """
    try:
        remove_events(directory, suffix)
        writer = tf.summary.create_file_writer(str(directory), filename_suffix=suffix)
        with writer.as_default(step=0):
            for content in summaries:
                tf.summary.experimental.write_raw_pb(content)
        writer.close()
    except (OSError, tf.errors.OpError) as error:
        raise unwritable(directory, error) from error


def remove_events(directory: Path, suffix: str = "") -> None:
    """Removes the event files of a directory, not of those below it, whose names end with `suffix`."""
    for path in directory.glob(f"events.out.tfevents.*{suffix}"):
        path.unlink(missing_ok=True)


def unwritable(directory: Path | None, error: OSError | tf.errors.OpError) -> InputError:
    """Makes the error for event files that cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else " ".join(error.message.split())
    return InputError(
        f"TensorBoard's files in '{directory}' cannot be written ({reason});"
        " make room or mend the directory, then go on with the same command"
    )


def _runs(directory: Path) -> Iterator[Path]:
    """The run directories below one, links followed to none; what is below a run is its own."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if (path / run_dir.CONFIG).is_file():
            if any(run_dir.event_directory(path).glob("events.out.tfevents.*")):
                yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _runs(path)


def _metrics() -> list[hparams.Metric]:
    titles = {**TITLES, "step": "Best step"}
    return [hparams.Metric(f"{BEST}/{name}", display_name=title) for name, title in titles.items()]


def _column(key: str, values: Sequence[bool | int | float | str], first: bool) -> api_pb2.HParamInfo:
    """The column of a key with the values that runs have for it, among the first ones or not."""
    info = api_pb2.HParamInfo(name=key, display_name=key, differs=first)
    if all(isinstance(value, bool) for value in values):
        info.type = api_pb2.DATA_TYPE_BOOL
        info.domain_discrete.extend(sorted(set(values)))
    elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        info.type = api_pb2.DATA_TYPE_FLOAT64
        info.domain_interval.min_value, info.domain_interval.max_value = min(values), max(values)  # type: ignore[arg-type, assignment, type-var]
    else:
        info.type = api_pb2.DATA_TYPE_STRING
        info.domain_discrete.extend(sorted({str(value) for value in values}))
    return info


def _comparable(value: Any) -> tuple[str, Any]:
    """1 and True differ, 1 and 1.0 do not."""
    return ("bool" if isinstance(value, bool) else ""), value
