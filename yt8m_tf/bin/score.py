"""Scores shards with a trained model, and writes score shards: the 100 highest scores of each video, in float16.

Given the runs of all folds of a model, each training shard is scored by the run that held it out, and every other shard
by the mean of all runs. After an interruption, the same command resumes. Several processes started with the same
command share the shards.

--kind=embeddings writes, instead of scores, the input of the model's classification layer (the last one that is as wide
as the classes) in float16: as shards with the feature `embedding`, which yt8m-train reads, or as .npy files with files
of ids next to them.

Example:

  yt8m-score --model='runs/moe/fold_*' --data_dir=DATA/2/video --input='train*.tfrecord' \\
      --output=scores/moe/train
  yt8m-score --model=exported/student/1 --input='DATA/2/video/test*.tfrecord' --output=scores/student/test
  yt8m-score --model=runs/resnet_like --input='DATA/2/video/train*.tfrecord' --output=embeddings/train \\
      --kind=embeddings
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin import checkpoint_flags, fault_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command

_MODEL = flags.DEFINE_list(
    "model",
    None,
    "Run directories of yt8m-train (a pattern may name the folds), or one SavedModel; pretrained: the packaged one.",
    required=True,
)
_INPUT = flags.DEFINE_list("input", None, "Patterns of shards, relative to --data_dir.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which --input is relative.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the score shards, or the embeddings.", required=True)
_KIND = flags.DEFINE_enum("kind", "scores", ["scores", "embeddings"], "Output for each video.")
_FORMAT = flags.DEFINE_enum("format", "tfrecord", ["tfrecord", "npy"], "File format of embeddings.")
_TOP_K = flags.DEFINE_integer("top_k", 100, "Number of highest scores to keep for each video.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Records scored together; the default is 1024 at video level, 128 at frame level.",
    lower_bound=1,
)
_XLA = flags.DEFINE_bool("xla", True, "Compile the forward pass with XLA.")
flags.adopt_module_key_flags(checkpoint_flags)
flags.adopt_module_key_flags(fault_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.scoring.predictors import find_predictor
    from yt8m_tf.scoring.score import score

    if _KIND.value == "embeddings":
        return _embed()
    output = files.local_path(_OUTPUT.value, "--output")
    models = _models()
    predictors = [find_predictor(path, checkpoint_flags.CHECKPOINT.value, _XLA.value) for path in models]
    shards = list_shards(_INPUT.value, _DATA_DIR.value, "--input")
    summary = score(
        predictors,
        shards,
        output,
        top_k=_TOP_K.value,
        batch_size=_BATCH_SIZE.value,
        faults=fault_flags.faults(),
        xla=_XLA.value,
    )
    counts, rate = summary.manifest.shards, summary.num_scored / max(summary.seconds, 1e-9)
    print(
        f"{_OUTPUT.value}: scores of {sum(counts.values()):,} videos of {len(counts):,} shards ({rate:,.0f} videos/s)"
    )
    for line in summary.faults.summary():
        print(line)
    if following := _next(output, shards, summary.manifest.folds):
        print(following)


def _next(output: Path, shards: Sequence[str], folds: Mapping[str, int]) -> str | None:
    """Returns the next command after out-of-fold scores of all shards, in scores/MODEL/train: their stacking."""
    of_shards = {folds.get(os.path.basename(shard)) for shard in shards}
    if "train" not in output.name or None in of_shards or len(of_shards) < 2:
        return None
    split = None if output.name == "train" else output.name
    scores = output.absolute().parent.parent / "*"
    values = {"scores": scores, "split": split, "data_dir": _DATA_DIR.value, "input": _INPUT.value}
    return next_command("stack", **values, output="stacked")


def _models() -> list[Path]:
    """Returns the directories of the models: runs or SavedModels."""
    from yt8m_tf import files
    from yt8m_tf.pretrained import packaged

    return files.matching([packaged.saved_model(value, "--model") for value in _MODEL.value], "--model")


def _embed() -> None:
    from yt8m_tf import files
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.errors import InputError
    from yt8m_tf.scoring import embeddings

    output = files.local_path(_OUTPUT.value, "--output")
    models = _models()
    if len(models) > 1:
        raise InputError(
            f"--model: {len(models)} models, and their embeddings differ; give one, or combine them with yt8m-ensemble"
        )
    summary = embeddings.embed(
        embeddings.load_embedder(models[0], checkpoint_flags.CHECKPOINT.value),
        list_shards(_INPUT.value, _DATA_DIR.value, "--input"),
        output,
        kind=_FORMAT.value,
        batch_size=_BATCH_SIZE.value,
        faults=fault_flags.faults(),
    )
    manifest, rate = summary.manifest, summary.num_embedded / max(summary.seconds, 1e-9)
    count = sum(shard.num_videos for shard in manifest.shards.values())
    print(
        f"{_OUTPUT.value}: embeddings, {manifest.size:,} values each, of {count:,} videos of {len(manifest.shards):,}"
        f" shards ({rate:,.0f} videos/s)"
    )
    if manifest.kind == "tfrecord":
        print(
            "to train on them, in a configuration: data: {features: {"
            f"{embeddings.FEATURE}: {{size: {manifest.size}, dtype: float16}}}}}}"
        )
    for line in summary.faults.summary():
        print(line)


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
