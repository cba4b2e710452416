"""The published pipelines: all their stages, and a run with every family of models cut to tiny widths."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from sample_world import MAX_FRAMES, NUM_CLASSES, SIZES, Sample
from shrink import shrink

from yt8m_tf.config import strict_yaml
from yt8m_tf.pipelines import runner, workers
from yt8m_tf.pipelines.content import shards_of
from yt8m_tf.pipelines.execution import Where
from yt8m_tf.pipelines.settings import ModelSettings, PipelineConfig, load_pipeline
from yt8m_tf.pipelines.stages import make_stages
from yt8m_tf.pipelines.starts import check_starts
from yt8m_tf.pipelines.state import States

_FOLDS = 2


def one_of_each_family(settings: PipelineConfig) -> dict[str, ModelSettings]:
    """The first model of each combination of name, variant, cell and head."""
    chosen: dict[str, tuple[str, ModelSettings]] = {}
    for name, model in settings.first_level().items():
        values = settings.experiment(model, {}).model
        family = json.dumps([values["name"], *(str(values.get(key)) for key in ("variant", "cell", "head"))])
        chosen.setdefault(family, (name, model))
    return dict(chosen.values())


def _tiny(settings: PipelineConfig, sample: Sample) -> PipelineConfig:
    def cut(model: ModelSettings) -> Any:
        full = settings.experiment(model, {})
        features = {name: SIZES[name] for name in full.data.features}
        verticals = sample.num_verticals if full.data.verticals else 0
        changes = {"model": shrink(full.model), "data": {"features": features, "verticals": verticals}}
        return dataclasses.replace(model, changes=strict_yaml.merge(model.changes, changes))

    def data(level: str) -> dict[str, Any]:
        own = {"validation": f"{level}/validate*.tfrecord", "train": [f"{level}/train*.tfrecord"]}
        return {"data": {**own, "num_classes": NUM_CLASSES, "max_frames": MAX_FRAMES, "shuffle_records": 100}}

    return dataclasses.replace(
        settings,
        all_of=(),
        models={name: cut(model) for name, model in one_of_each_family(settings).items()},
        num_folds=_FOLDS,
        video=data("video"),
        frame=data("frame"),
        splits=("validation",),
        train={"batch_size": 32, "steps_per_epoch": 10, "epochs": 1, "validation_examples": 128},
        stack=dataclasses.replace(settings.stack, num_trees=20, learning_rate=0.1),
        students={name: cut(model) for name, model in settings.students.items()},
        final=settings.final and dataclasses.replace(cut(settings.final), trunks=settings.final.trunks),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["samsung2018", "second_place2018"])
def test_every_family_runs_through(name: str, sample: Sample, tmp_path: Path) -> None:
    settings = load_pipeline(f"pipelines/{name}.yaml")
    assert len(make_stages(settings)) == {"samsung2018": 923, "second_place2018": 61}[name]
    check_starts(make_stages(settings))
    stages = make_stages(_tiny(settings, sample))
    states = States(tmp_path / "run", stages, shards_of(stages, str(sample.directory)))
    where = Where(str(sample.directory), tmp_path / "run", num_threads=1, xla=False, progress=False)
    with workers.local_workers(2, where) as submit:
        results = runner.run(stages, states, submit, 2)
    gaps = results["stack"]["gaps"]["validation"]
    print(runner.summary(results, tmp_path / "run"))
    assert gaps["LightGBM"] > sample.prior_gap
    assert list(results)[-1].startswith("export")
