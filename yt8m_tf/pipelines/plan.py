"""Cost estimates of a pipeline before it runs: videos, parameters, operations, hours and bytes of each stage."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.config.experiment import ExperimentConfig
from yt8m_tf.console import tables
from yt8m_tf.data import crc32c
from yt8m_tf.data.shards import list_shards, size_of
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.pipelines.content import shards_of
from yt8m_tf.pipelines.known_models import ForwardCost, forward_cost, key_of
from yt8m_tf.pipelines.settings import PipelineConfig
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.state import States
from yt8m_tf.stacking.settings import OUT_OF_FOLD

# Cost of a training step in forward passes: forward, gradient of the weights, gradient of the inputs.
_TRAINING = 3
_SCORE_BYTES = 480  # per score record
_SEGMENT_BYTES = 60 * 20 * 10  # per video in a submission of segments
_ROW_BYTES = 2  # per feature of a candidate row
_CANDIDATES = 40  # per video
# LightGBM: binned values that one core processes per second, each of them once for every tree (measured on the real
# records); and bytes of a row in addition to its binned values.
_TREE_VALUES, _LIGHTGBM_BYTES = 8e7, 32


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a stage; an upper bound, because training may stop early.

    Attributes:
      examples: number of examples read; an example counts each time it is read.
      parameters: number of parameters of the model.
      operations: floating-point operations of matrix products and convolutions.
      bytes_written: bytes on disk at the end.
    """

    examples: int = 0
    parameters: int = 0
    operations: float = 0.0
    bytes_written: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.examples + other.examples,
            max(self.parameters, other.parameters),
            self.operations + other.operations,
            self.bytes_written + other.bytes_written,
        )


def costs(stages: Sequence[Stage], data_dir: str, videos: Mapping[str, int]) -> dict[str, Cost]:
    """Returns the cost of each stage by name; `videos` has the sizes of splits whose shards are missing."""
    experiments = {stage.output: stage.experiment for stage in stages if stage.kind == "train"}
    distinct = {key_of(experiment): experiment for experiment in experiments.values()}  # a model's folds cost the same
    found = {key: forward_cost(experiment) for key, experiment in distinct.items()}
    sizes = {output: found[key_of(experiment)] for output, experiment in experiments.items()}
    count = functools.cache(functools.partial(_num_videos, data_dir, videos))  # hundreds of stages read the same shards
    return {
        stage.name: _cost(stage, experiments, sizes, count) + _teaching(stage, stages, experiments, sizes)
        for stage in stages
    }


def _teaching(
    stage: Stage,
    stages: Sequence[Stage],
    experiments: Mapping[str, ExperimentConfig],
    sizes: Mapping[str, ForwardCost],
) -> Cost:
    """Returns the cost that the teachers of a run add: a forward pass of each of them in every step."""
    runs = [run for own in stage.teachers(stages) for run in own.options.get("members", (own.output,))]
    if not runs:
        return Cost()
    train = experiments[stage.output].train
    return Cost(operations=train.total_steps * train.batch_size * sum(sizes[run].operations for run in runs))


def _cost(
    stage: Stage,
    experiments: Mapping[str, ExperimentConfig],
    sizes: Mapping[str, ForwardCost],
    count_videos: Callable[[tuple[str, ...], str], int],
) -> Cost:
    if stage.kind == "train":
        experiment = experiments[stage.output]
        parameters, operations = sizes[stage.output].parameters, sizes[stage.output].operations
        train, data = experiment.train, experiment.data
        examples = train.total_steps * train.batch_size
        if data.num_folds:
            count = count_videos(data.train, "train") // data.num_folds
        else:
            count = count_videos(data.validation, "validation")
        validated = train.epochs * min(train.validation_examples or count, count)
        copies = 1 + len(experiment.optimizer.slot_names) + (train.ema_decay is not None)
        return Cost(
            examples + validated,
            parameters,
            _TRAINING * operations * examples + operations * validated,
            3 * copies * 4 * parameters,  # the last two checkpoints and the best
        )
    count = count_videos(stage.shards, stage.split)
    if stage.kind == "score":
        runs = [sizes[run] for run in stage.options["models"]]
        passes = 1 if stage.split == "train" else len(runs)
        return Cost(count, runs[0].parameters, passes * runs[0].operations * count, _SCORE_BYTES * count)
    if stage.kind == "stack":
        rows = count * _CANDIDATES
        return Cost(count, 0, 0.0, rows * (_ROW_BYTES * (len(stage.options["models"]) + 3) + 9) + _SCORE_BYTES * count)
    if stage.kind == "infer_segments":  # operations are not estimated
        return Cost(count, 0, 0.0, _SEGMENT_BYTES * count)
    forward = sizes.get(stage.options.get("run", ""), ForwardCost(0, 0.0))
    written = {"export": _stored_bytes(stage) * forward.parameters, "infer": 280 * count, "mean": 0}.get(stage.kind, 0)
    return Cost(count, forward.parameters, forward.operations * count, written)


def _stored_bytes(stage: Stage) -> int:
    """Returns the bytes of an exported weight."""
    return {"cluster": 1, "float16": 2}.get(parse_precision(stage.options.get("precision", "float16")).coarsest, 4)


def _num_videos(data_dir: str, videos: Mapping[str, int], patterns: Sequence[str], split: str) -> int:
    """Estimates the number of videos: the records of the first shard, scaled by the total size of all shards."""
    try:
        shards = list_shards(patterns, data_dir)
    except InputError:
        return videos.get(split, 0)
    first, *_ = sizes = [size_of(shard) for shard in shards]
    return round(_num_records(shards[0]) * sum(sizes) / first) if first else 0


def _num_records(shard: str) -> int:
    if not files.has_scheme(shard):
        return crc32c.count_records(shard)
    from yt8m_tf.data import integrity  # imports TensorFlow, which reads remote files

    return integrity.scan_shard(shard).num_records


def format_plan(stages: Sequence[Stage], found: Mapping[str, Cost], states: Mapping[str, str], teraflops: float) -> str:
    """Formats the plan as aligned text, with one line for the stages of a model's folds, and a total.

    Args:
      stages: all stages.
      found: from `costs`.
      states: a word for the state of each stage.
      teraflops: operations of a device per second, in trillions.
    """
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(stage.name.partition(" fold ")[0], []).append(stage)
    header = ("stage", "state", "after", "writes", "videos", "parameters", "GFLOP", "hours", "bytes written")
    rows: list[tuple[str, ...]] = [header]
    for name, members in groups.items():
        cost = sum((found[stage.name] for stage in members), Cost())
        counts = {state: sum(states[s.name] == state for s in members) for state in dict.fromkeys(states.values())}
        shown = ", ".join(f"{n} {state}" if len(members) > 1 else state for state, n in counts.items() if n)
        title = f"{name}, {len(members)} folds" if len(members) > 1 else name
        output = members[0].output if len(members) == 1 else members[0].output.replace("fold_0", "fold_*")
        rows.append((title, shown, _in_brief(members[0].inputs), output, *_cells(cost, teraflops)))
    total = sum(found.values(), Cost())
    rows.append((f"{len(stages)} stages", "", "", "", *_cells(dataclasses.replace(total, parameters=0), teraflops)))
    return tables.aligned(rows, num_left=4)


def _in_brief(names: Sequence[str]) -> str:
    """Returns the first of some names of stages, and how many more there are; a model's folds count as one."""
    distinct = list(dict.fromkeys(name.partition(" fold ")[0] for name in names))
    return f"{distinct[0]} and {len(distinct) - 1} more" if len(distinct) > 1 else "".join(distinct)


def _cells(cost: Cost, teraflops: float) -> tuple[str, ...]:
    return (
        f"{cost.examples:,}",
        f"{cost.parameters:,}" if cost.parameters else "",
        f"{cost.operations / 1e9:,.0f}" if cost.operations else "",
        f"{_hours(cost, teraflops):,.2f}" if cost.operations else "",
        f"{cost.bytes_written / 1e6:,.1f} MB" if cost.bytes_written else "",
    )


def _hours(cost: Cost, teraflops: float) -> float:
    return cost.operations / (teraflops * 1e12) / 3600


def describe(stages: Sequence[Stage], settings: PipelineConfig, data_dir: str, workdir: Path, teraflops: float) -> str:
    """Returns `format_plan` of a pipeline, the cost of LightGBM, and the totals of all and of the remaining stages.

    States of stages are shown only if the data exists.
    """
    note = ""
    try:
        shards = shards_of(stages, data_dir)
    except InputError as error:
        if not settings.videos:
            raise
        states = dict.fromkeys((stage.name for stage in stages), "no data")
        note = f"\n(without the data, from the configuration's `videos`: {error})"
    else:
        known = States(workdir, stages, shards)
        states = {stage.name: known.of(stage.name) for stage in stages}
        note = "".join(f"\nchanged: {line}" for line in known.changed())
    found = costs(stages, data_dir, settings.videos)
    lines = [format_plan(stages, found, states, teraflops)]
    stack = next((stage for stage in stages if stage.kind == "stack"), None)
    cpu_hours = dict[str, float]()  # of LightGBM
    if stack is not None:
        rows = _CANDIDATES * _num_videos(data_dir, settings.videos, stack.options["splits"][OUT_OF_FOLD], "train")
        columns, trees = 1 + len(stack.options["models"]), settings.stack.num_trees * settings.num_folds
        gigabytes, hours = rows * (columns + _LIGHTGBM_BYTES) / 1e9, rows * columns * trees / _TREE_VALUES / 3600
        cpu_hours[stack.name] = hours
        lines.append(
            f"stack: about {rows:,} rows of {columns} columns, {gigabytes:,.1f} GB of memory;"
            f" up to {trees:,} trees, {hours:,.1f} hours of one CPU core"
        )
    left = [stage.name for stage in stages if states[stage.name] != "done"]
    for title, names in (("in all", [stage.name for stage in stages]), ("remaining", left)):
        total = sum((found[name] for name in names), Cost())
        lines.append(_total(title, len(names), total, sum(cpu_hours.get(name, 0.0) for name in names), teraflops))
    return "\n".join(lines) + note


def _total(title: str, num_stages: int, cost: Cost, cpu_hours: float, teraflops: float) -> str:
    parts = [f"{num_stages} stages, {_hours(cost, teraflops):,.2f} hours at {teraflops:g} TFLOP/s"]
    if cpu_hours:
        parts.append(f"{cpu_hours:,.2f} hours of one CPU core")
    return f"{title}: {', '.join([*parts, f'{tables.size(cost.bytes_written)} written'])}"
