"""Pipeline stages of models on rated segments: from models of whole videos to one submission."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.settings import PipelineConfig
from yt8m_tf.pipelines.stage import Stage


def segment_stages(settings: PipelineConfig, trained: Mapping[str, Stage], exports: Sequence[Stage]) -> list[Stage]:
    """Returns the stages that train, evaluate and export models on ratings, and score windows with their mean.

    The model from which each of them starts is evaluated on the same ratings, to show the gain of training on ratings.

    Args:
      settings: the pipeline.
      trained: training stage of each model of `settings.segments`, by name.
      exports: export stages of these runs, in the same order.

    Raises:
      InputError: a configuration has no `data.segments`, or sizes of segments differ.
    """
    if not trained:
        return []
    segments = {name: stage.options["experiment"]["data"]["segments"] for name, stage in trained.items()}
    if wrong := [name for name, own in segments.items() if own is None]:
        raise InputError(
            f"segments.{wrong[0]}: its configuration has no data.segments; give one that has, see configs/segments"
        )
    sizes = {own["size"] for own in segments.values()}
    if len(sizes) > 1:
        raise InputError(
            f"segments: all windows must have the same size, but data.segments.size is {', '.join(map(str, sizes))};"
            " set one size"
        )
    stages: list[Stage] = []
    for name, stage in trained.items():
        data = stage.options["experiment"]["data"]
        ratings = tuple(data["validation"])
        own = settings.segments[name]
        if start := own.start:
            before = {"run": f"runs/{start}", "segments": data["segments"]}
            stages.append(_evaluate(f"{name} before", (f"train {start}",), before, ratings))
            stage = dataclasses.replace(
                stage, options={**stage.options, "init_from": [f"runs/{start}"], "init_exclude": list(own.exclude)}
            )
        stages += [stage, _evaluate(name, (stage.name,), {"run": stage.output}, ratings)]
    stages += exports
    first = next(iter(trained.values())).options["experiment"]["data"]
    options = {
        "saved_models": [stage.output for stage in exports],
        "size": sizes.pop(),
        "classes": settings.segment_classes,
        "num_classes": first["num_classes"],
    }
    names = tuple(stage.name for stage in exports)
    for split in settings.splits:
        output, shards = f"segments/{split}.csv", tuple(first[split])
        stages.append(Stage(f"infer_segments {split}", "infer_segments", names, output, options, shards, split))
    return stages


def _evaluate(what: str, inputs: tuple[str, ...], options: Mapping[str, object], ratings: tuple[str, ...]) -> Stage:
    output = f"evaluation/{what.replace(' ', '_')}"
    return Stage(f"evaluate {what}", "evaluate", inputs, output, options, ratings, "validation")
