"""The section of a report on how a model was made: its settings, data, machine, versions and choices."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from yt8m_tf.config import strict_yaml
from yt8m_tf.console.tables import duration
from yt8m_tf.report.parts import Listing, Note, Part, Section, Table
from yt8m_tf.report.workdir import Run, Workdir

_ALONE = ("checkpoint", "the one with the highest GAP@20", "validation shards (also used to evaluate it)")


def origin(workdir: Workdir, model: str) -> Section:
    """Returns the section on how a model was made: facts, configuration, and the data that decided each choice."""
    run = workdir.runs[model]
    facts = Table(f"How {model} was made", ["setting", "value"], list(_facts(run)), num_left=2, captioned=False)
    made = [[entry[key] for key in ("of", "choice", "where")] for entry in workdir.choices]
    made = made or [[model, *_ALONE[1:]]]
    settings = yaml.safe_dump(strict_yaml.to_dict(run.experiment), sort_keys=False)
    parts: list[Part] = [
        facts,
        Listing(f"The whole configuration of {model}", settings),
        Table("The data that decided each choice", ["part", "choice", "data"], made, num_left=3),
    ]
    if any("validation" in row[2] for row in made):
        parts.append(Note("A choice made on the validation videos makes the result there look better than it is."))
    return Section("origin", f"How {model} was made", parts)


def _facts(run: Run) -> Iterator[list[str]]:
    """Yields the rows of the table, without facts that the release that trained the model did not record."""
    experiment, data, train = run.experiment, run.experiment.data, run.experiment.train
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.sizes.items())
    yield ["model", f"{experiment.model['name']}, {data.level} level, features {sizes}; {data.num_classes:,} classes"]
    if run.num_parameters is not None:
        yield ["parameters", f"{run.num_parameters:,}, without statistics of batch normalisation"]
    if run.best_step is not None:
        yield ["checkpoint", f"step {run.best_step:,} of {train.total_steps:,}, in {run.directories[0]}"]
    for key, patterns in (("train", data.train), ("validation", data.validation)):
        count = f"; {run.num_shards[key]:,} shards" if key in run.num_shards else ""
        yield [f"data for {'training' if key == 'train' else key}", f"{', '.join(patterns)}{count}"]
    last = run.histories[0][-1] if run.histories[0] else {}
    if "num_videos" in last:
        yield ["validation videos", f"{last['num_videos']:,}"]
    if data.num_folds:
        yield ["folds", f"{data.num_folds}, by shard; each model is trained without its own"]
    labels = experiment.labels
    soft = f"scores {'in' if labels.soft else 'of'} {labels.source}" if labels.source else ""
    yield ["labels", f"{soft}, weight {labels.weight:g}; the rest from the records" if soft else "from the records"]
    optimizer = experiment.optimizer
    yield [
        "training",
        f"loss {experiment.loss.name}, {optimizer.name} with learning rate {optimizer.learning_rate:g}, schedule"
        f" {experiment.schedule.name}, batches of {train.batch_size:,}, {train.precision}, seed {train.seed}",
    ]
    if run.seconds is not None:
        yield ["training time", duration(run.seconds)]
    if not run.sessions[0]:
        yield ["machine and versions", "not recorded by the release that trained it"]
    for number, session in enumerate(run.sessions[0], 1):
        which = f", session {number} of {len(run.sessions[0])}" if len(run.sessions[0]) > 1 else ""
        versions = ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())
        for key, value in (("started", session.get("started", "")), ("device", session.get("device", ""))):
            yield [key + which, str(value)]
        yield ["data" + which, f"{session.get('training', '')}; validation: {session.get('validation', '')}"]
        yield ["versions" + which, f"{versions}; {session.get('system', '')}"]
