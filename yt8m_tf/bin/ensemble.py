"""Combines several trained runs into one model, the weighted mean of their probabilities or logits, as a new run.

yt8m-evaluate, yt8m-score and yt8m-export take it like any other run: one graph with all members in it. With members of
both levels it reads clips, and video-level members get the means of the frames.

With --stack the model is a stacking of yt8m-stack: its first-level models, their candidates and features, and the trees
of LightGBM, in TensorFlow operations. Members are matched to the stacked models by name: NAME, or NAME/fold_K. Several
runs of one name are averaged, as yt8m-score does for shards that are in no fold; a run that was trained on all shards
may replace them.

Example:

  yt8m-ensemble --members=runs/netvlad,runs/netrvlad,runs/bigru --weights=stacked/weights.json --workdir=runs/ensemble
  yt8m-export --workdir=runs/ensemble --output=exported/ensemble/1 --data_dir=DATA/2/frame
  yt8m-ensemble --stack=runs/real_best/stacked --members='runs/real_best/runs/*/fold_*' --workdir=runs/stack
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin import checkpoint_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command

_MEMBERS = flags.DEFINE_list("members", None, "Run directories of yt8m-train (a pattern may name them).", required=True)
_STACK = flags.DEFINE_string("stack", None, "Directory of yt8m-stack: make a model of this stacking of the members.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Numbers, separated by commas, or weights.json of yt8m-stack, which lists the runs by name."
)
_AVERAGE = flags.DEFINE_enum(
    "average",
    "probabilities",
    ["probabilities", "logits"],
    "Scores to average; weights can be fitted for probabilities only.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory to make.", required=True)
flags.adopt_module_key_flags(checkpoint_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files

    output = files.local_path(_WORKDIR.value, "--workdir")
    members = files.matching(_MEMBERS.value, "--members")
    if _STACK.value is None:
        _combine(members, output)
    else:
        _combine_stack(members, output)
    print(f"run: {output}")
    print(next_command("evaluate", workdir=output, data_dir="DATA"))


def _combine_stack(members: Sequence[Path], output: Path) -> None:
    from yt8m_tf import files
    from yt8m_tf.ensembling import stack
    from yt8m_tf.errors import InputError
    from yt8m_tf.layers.trees import ForestShape

    if _WEIGHTS.value is not None:
        raise InputError("--weights: is for weighted means, and trees weigh the members of a --stack; leave it out")
    stacked = files.local_path(_STACK.value, "--stack")
    experiment, found = stack.combine_stack(stacked, members, output, checkpoint_flags.CHECKPOINT.value)
    for name, member in found:
        print(f"{name}  {member}")
    forest = ForestShape(**experiment.model["forest"])
    print(f"{forest.trees:,} trees of {forest.boosters} boosters, tables of {forest.table_bytes:,} bytes")


def _combine(members: Sequence[Path], output: Path) -> None:
    from yt8m_tf.ensembling import weighted_mean
    from yt8m_tf.errors import InputError

    weights = [1.0] * len(members)
    if _WEIGHTS.value and _WEIGHTS.value.endswith(".json"):
        weights = weighted_mean.read_weights(Path(_WEIGHTS.value).expanduser(), [member.name for member in members])
    elif _WEIGHTS.value:
        try:
            weights = [float(weight) for weight in _WEIGHTS.value.split(",")]
        except ValueError as error:
            raise InputError(f"--weights={_WEIGHTS.value}: write numbers, such as 0.5,0.3,0.2") from error
        if len(weights) != len(members):
            raise InputError(f"--weights={_WEIGHTS.value}: {len(weights)} for {len(members)} members; give as many")
    experiment = weighted_mean.combine(members, weights, output, checkpoint_flags.CHECKPOINT.value, _AVERAGE.value)
    total = sum(experiment.model["weights"])
    for member, weight in zip(
        (m for m, w in zip(members, weights, strict=True) if w > 0), experiment.model["weights"], strict=True
    ):
        print(f"{weight / total:.4f}  {member}")


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
