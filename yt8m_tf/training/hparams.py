"""Runs in TensorBoard's HParams tab: a session for each run, and the columns of a sweep.

A run writes its own session. The folds of a model form one group, shown as one row with the means of their metrics.
`write_columns` writes the columns of a sweep once, into the first run, because TensorBoard would take a separate
directory for another run. Without these columns TensorBoard shows every key and every scalar as a column.
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

# Tag of the scalars of the best evaluation so far, whose last values the table shows. Their charts are of little
# interest, so the name sorts them after those of training and validation.
BEST = "validation_best"
# Suffixes of event files that are replaced, not appended to.
START, END, _COLUMNS = ".start.session", ".end.session", ".columns.session"
_STATUS = {"success": api_pb2.STATUS_SUCCESS, "failure": api_pb2.STATUS_FAILURE}
_ABSENT = object()
# Keys that do not affect how a model is trained.
_PLACES = ("data.train", "data.validation", "data.test", "data.fold")
# The columns that come first, sorted as TensorBoard sorts them.
_FIRST = ("model.name", "optimizer.learning_rate", "train.batch_size", "train.mixup_alpha")


def session_start(experiment: ExperimentConfig, group: str = "") -> bytes:
    """Returns a serialized summary of the configuration.

    Args:
      experiment: the run's configuration.
      group: runs with the same group form one row, with the means of their metrics; "": a row named after the run.
    """
    # `hparams.hparams` would group runs with equal values, even of different directories.
    return summary.session_start_pb(values_of(experiment), group_name=group).SerializeToString()


def group_of(workdir: Path, experiment: ExperimentConfig) -> str:
    """Returns the group of a run in `fold_<f>/`, the last three parent directories; "" for other runs."""
    if not experiment.data.num_folds or workdir.name != f"fold_{experiment.data.fold}":
        return ""
    return "/".join(workdir.resolve().parent.parts[-3:])


def session_end(status: str) -> bytes:
    """Returns a serialized summary that the run has ended, with "success" or "failure"."""
    return summary.session_end_pb(_STATUS[status]).SerializeToString()


def values_of(experiment: ExperimentConfig) -> dict[str, bool | int | float | str]:
    """Returns the hyperparameters of a run: its configuration by dotted keys, without shards and fold."""
    return {key: value for key, value in flatten(strict_yaml.to_dict(experiment)).items() if key not in _PLACES}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Returns dotted keys with values that the HParams plugin accepts; values of None are left out."""
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
    """Writes the columns for runs below `directory`: the keys in which they differ, and the best metrics.

    Model, learning rate, batch size and mixup's alpha come first among the keys, GAP@20 among the metrics. For a single
    run, or equal runs, all keys are written. Call it again after adding runs; a running TensorBoard keeps the columns
    that it has read.

    Returns:
      The keys.

    Raises:
      InputError: there are no runs, or the directory cannot be written.
    """
    paths = list(_runs(directory))
    runs = [values_of(run_dir.read_experiment(path)) for path in paths]
    if not runs:
        raise InputError(f"--workdir={directory}: no runs of yt8m-train below it; name a directory with runs")
    keys = sorted(set().union(*runs), key=lambda key: (key not in _FIRST, key))
    different = [key for key in keys if len({_comparable(run.get(key, _ABSENT)) for run in runs}) > 1]
    shown = different or keys
    # TensorBoard shows columns that "differ" first, so we set "differs" for the columns of most interest.
    first = [key for key in shown if key in _FIRST] or shown
    infos = [_column(key, [run[key] for run in runs if key in run], key in first) for key in shown]
    content = summary.experiment_pb(infos, [metric.as_proto() for metric in _metrics()]).SerializeToString()
    places = [run_dir.event_directory(path) for path in paths]
    for place in (directory, *places):  # where earlier releases wrote them
        remove_events(place, _COLUMNS)
    replace_events(places[0], _COLUMNS, [content])
    return shown


def replace_events(directory: Path, suffix: str, summaries: Sequence[bytes]) -> None:
    """Writes serialized summaries, at step 0, into an event file that replaces those with the same `suffix`.

    They are not appended, because TensorBoard keeps the first of several summaries of these kinds.

    Raises:
      InputError: the directory cannot be written.
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
    """Removes event files whose names end with `suffix` from a directory, but not from those below it."""
    for path in directory.glob(f"events.out.tfevents.*{suffix}"):
        path.unlink(missing_ok=True)


def unwritable(directory: Path | None, error: OSError | tf.errors.OpError) -> InputError:
    """Creates the error for event files that cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else " ".join(error.message.split())
    return InputError(
        f"TensorBoard's files in '{directory}' cannot be written ({reason});"
        " free disk space or repair the directory, then continue with the same command"
    )


def _runs(directory: Path) -> Iterator[Path]:
    """Yields the run directories below a directory; does not follow links or look into runs."""
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
    """Returns the column of a key from the values of runs; `first` puts it among the first columns."""
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
    """Returns a key for comparison, in which 1 and True differ, but 1 and 1.0 do not."""
    return ("bool" if isinstance(value, bool) else ""), value
