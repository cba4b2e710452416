"""Runs as TensorBoard's HParams tab knows them: a session each, and the columns of a sweep.

A run writes its session itself. What the columns of a table of several runs are is said once for all of them, in the
directory above theirs (`write_columns`); without that TensorBoard takes every key and every scalar for a column.
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

# The scalars of the best evaluation so far: the last value of each is what the table shows.
BEST = "best"
# Event files that are written anew, not added to, end with this.
SUFFIX = ".session"
_STATUS = {"success": api_pb2.STATUS_SUCCESS, "failure": api_pb2.STATUS_FAILURE}
_ABSENT = object()
# Where shards are says nothing of how a run was trained.
_PLACES = ("data.train", "data.validation", "data.test")


def session_start(experiment: ExperimentConfig) -> bytes:
    """A serialized summary of the configuration; the row of the run is named after its directory."""
    # Not `hparams.hparams`: that names rows by a hash of the values, or by one name in all directories, fold_0 perhaps,
    # and rows of one name are averaged.
    return summary.session_start_pb(values_of(experiment)).SerializeToString()


def session_end(status: str) -> bytes:
    """A serialized summary that the run has ended, with "success" or "failure"."""
    return summary.session_end_pb(_STATUS[status]).SerializeToString()


def values_of(experiment: ExperimentConfig) -> dict[str, bool | int | float | str]:
    """The hyperparameters of a run: its configuration by dotted keys, without the places of shards."""
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

    Of a single run, or of equal ones, all keys. To be called again when runs were added; a TensorBoard that is running
    keeps what it has read.

    Returns:
      The keys.

    Raises:
      InputError: there are no runs, or the directory cannot be written to.
    """
    runs = [values_of(run_dir.read_experiment(path)) for path in _runs(directory)]
    if not runs:
        raise InputError(f"--workdir={directory}: no runs of yt8m-train below it; name the directory that holds them")
    keys = sorted(set().union(*runs))
    different = [key for key in keys if len({_comparable(run.get(key, _ABSENT)) for run in runs}) > 1]
    shown = different or keys
    infos = [_column(key, [run[key] for run in runs if key in run]) for key in shown]
    content = summary.experiment_pb(infos, [metric.as_proto() for metric in _metrics()]).SerializeToString()
    replace_events(directory, ".columns" + SUFFIX, [content])
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
    """What to say when event files cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else " ".join(error.message.split())
    return InputError(
        f"TensorBoard's files in '{directory}' cannot be written ({reason});"
        " make room or mend the directory, then go on with the same command"
    )


def _runs(directory: Path) -> Iterator[Path]:
    """The run directories below one, links followed to none; what is below a run is its own."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if (path / run_dir.CONFIG).is_file():
            if (path / run_dir.TENSORBOARD).is_dir():
                yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _runs(path)


def _metrics() -> list[hparams.Metric]:
    titles = {**TITLES, "step": "Best step"}
    return [hparams.Metric(f"{BEST}/{name}", display_name=title) for name, title in titles.items()]


def _column(key: str, values: Sequence[bool | int | float | str]) -> api_pb2.HParamInfo:
    """The column of a key with the values that runs have for it."""
    info = api_pb2.HParamInfo(name=key, display_name=key, differs=True)
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
