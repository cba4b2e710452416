"""The data on which a pipeline makes each of its choices.

A metric on the videos on which something was chosen is not an unbiased measure of it. Imports no framework.
"""

from __future__ import annotations

from yt8m_tf.pipelines.settings import PipelineConfig

_STOPPING = "stopping: the checkpoint of the highest GAP@20"
OUT_OF_FOLD, VALIDATION, BY_HAND = (
    "out of fold",
    "validation shards (also used to evaluate it)",
    "by hand, in the configuration",
)


def choices(settings: PipelineConfig) -> list[dict[str, str]]:
    """Returns an entry for each choice: "of", the part; the "choice"; and "where", the data on which it is made."""
    found: list[tuple[str, str, str]] = []
    if settings.models or settings.all_of:
        found += [
            ("first-level models", _STOPPING, f"{OUT_OF_FOLD}: each model's own fold"),
            ("LightGBM", "number of trees", f"{OUT_OF_FOLD}: each booster's own fold"),
            ("weighted mean of the stacking", "weights", f"{OUT_OF_FOLD}: stored float16 scores"),
        ]
        if settings.stack.candidates == "best_model":
            found.append(("LightGBM", "the model that names candidates", OUT_OF_FOLD))
    runs = {"students": settings.students, "baselines": settings.baselines, "final": settings.final}
    for name, own in runs.items():
        if own:
            found.append((name, _STOPPING, VALIDATION))
    learners = {**settings.students, **({"final": settings.final} if settings.final else {})}
    for name, learner in learners.items():
        if learner.teacher:
            found.append((name, f"teacher: {learner.teacher}", BY_HAND))
    if settings.segments:
        found.append(("segments", "stopping: the checkpoint of the highest MAP", VALIDATION))
    if settings.mean:
        found.append(("mean", "members: the models of fold 0", "all of them; no choice"))
        how = {"probabilities": "stored float16 scores", "logits": "float32 logits, scored again by the fold models"}
        found.append(("mean", "weights", f"{OUT_OF_FOLD}: {how[settings.mean_of]}"))
        if settings.mean_of == "logits":
            found.append(("mean", "sharpness: not needed; GAP@20 does not depend on it", "-"))
    if settings.ensemble and settings.ensemble_recipes:
        found.append(("ensemble", "members", BY_HAND))
        stand_in = ", ".join(f"{recipe} for {name}" for name, recipe in settings.ensemble_recipes.items())
        where = f"{OUT_OF_FOLD}: float32 logits of fold models of the same recipes: {stand_in}"
        found.append(("ensemble", "weights", where))
    elif settings.ensemble:
        found.append(("ensemble", "members and weights, which also set the sharpness", BY_HAND))
    if settings.stack_members:
        found.append(("stacking", "members", BY_HAND))
        found.append(("stacking", "trees, and the model that names candidates", f"{OUT_OF_FOLD}: those of LightGBM"))
    found.append(("exports", f"precision: {settings.export}", BY_HAND))
    return [{"of": what, "choice": choice, "where": where} for what, choice, where in found]
