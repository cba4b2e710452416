"""Checks that initial weights fit their models, and teachers their students, before a pipeline runs for days."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Sequence
from pathlib import Path

from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.known_models import Shapes, variable_shapes
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.training.can_teach import check_can_teach


def check_starts(stages: Sequence[Stage]) -> None:
    """Checks each stage that takes its initial weights from other runs, or has a teacher.

    The checks are those of `initial_weights.init_from` and `teacher.load_teacher`.

    Raises:
      InputError: no run has a variable, or the first run with it has another shape; the models' inputs differ; or a
        teacher's data differs from its student's.
    """
    runs = {stage.output: stage for stage in stages if stage.kind == "train"}

    @functools.cache
    def shapes(output: str) -> Shapes:
        return variable_shapes(runs[output].experiment)

    for stage in stages:
        for teacher in stage.teachers(stages):
            for run in teacher.options.get("members", (teacher.output,)):
                where = f"the pipeline's configuration: {Path(stage.output).name}.teacher: {run}"
                check_can_teach(runs[run].experiment.data, stage.experiment.data, where)
        sources = stage.options.get("init_from", ())
        if not sources:
            continue
        name, students = Path(stage.output).name, ", ".join(f"'{Path(source).name}'" for source in sources)
        for source in sources:
            key = "unit_inputs"
            own, theirs = (run.experiment.model.get(key) for run in (stage, runs[source]))
            if None not in (own, theirs) and own != theirs:
                raise InputError(
                    f"the pipeline's configuration: model.{key} of '{name}' is {own}, and of '{Path(source).name}',"
                    f" whose weights it starts from, {theirs}; give both the same"
                )
        for path, shape in shapes(stage.output).items():
            if any(fnmatch.fnmatch(path, pattern) for pattern in stage.options.get("init_exclude", ())):
                continue
            found = next((shapes(source)[path] for source in sources if path in shapes(source)), None)
            if found != shape:
                there = f"there with the shape {list(found)}" if found is not None else "not there"
                afresh = f", or add '{path}' to {name}.exclude" if "init_exclude" in stage.options else ""
                raise InputError(
                    f"the pipeline's configuration: '{name}' starts from the weights of {students}, and needs '{path}'"
                    f" {list(shape)}, which is {there}; give {name}.changes.model the sizes of these models{afresh}"
                )
