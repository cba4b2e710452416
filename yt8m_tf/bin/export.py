"""Exports a trained model as a SavedModel that needs no code, and measures it against the trained one.

Optimizer slots and the like are stripped, and the weights are stored as float16 or as indices into codebooks. The
SavedModel appears only if it is within the size limit and its GAP@20 on the validation data is that of the trained
model. For TF Serving, name a version: NAME/1.

Example:

  yt8m-export --workdir=runs/resnet_like --output=exported/resnet_like/1 --data_dir=DATA/2/video
  saved_model_cli show --dir=exported/resnet_like/1 --all
  yt8m-export --workdir=runs/final --output=exported/final/1 --data_dir=DATA/2/video --bundle=final.tgz

--pack exports a weighted mean of trained models instead, each at its own precision: the members with the best
out-of-fold GAP@20 within --size_limit. It exports every candidate at every precision, and scores videos that the
candidate has not seen. Selection is greedy, on half of these videos. A move adds a candidate at a precision (again, if
it is a member: its count is its weight), changes the precision of a member, or removes one. The best move is made
repeatedly, until no move that fits gains 2e-5 in GAP. "Best" is the highest gain in the first pass, and the highest
gain per byte in the second. The third pass starts with the smallest precision of each candidate. Weights fitted by
likelihood replace these counts if their GAP is higher (ensembling/packing/selection.py has the full rule, and its
sources). GAP on the other half of the videos estimates the result. The frontier of size and GAP is written to
OUTPUT.pack/, with everything needed to resume an interrupted packing.

  yt8m-export --pack --candidates='runs/*/fold_0' --scores='scores/*/train' --data_dir=DATA/2/video \\
      --precisions=float16,cluster --output=exported/pack/1
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from yt8m_tf.bin import checkpoint_flags, fault_flags, label_flags, pack_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command
from yt8m_tf.serving.limits import SIZE_LIMIT

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory of yt8m-train.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory of the SavedModel.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which the run's patterns of shards are relative.")
_PRECISION = flags.DEFINE_string(
    "precision",
    "float16",
    "Storage of the weights: float16, float32, cluster (256 values per layer), cluster@512 (a codebook for every 512"
    " outputs); or rules, of which the first that matches a variable's path applies, such as"
    " 'dense*:cluster,bn*:float32,*:float16', or a YAML list of rules.",
)
_SIZE_LIMIT = flags.DEFINE_integer(
    "size_limit", SIZE_LIMIT, "Bytes that the SavedModel may take, uncompressed.", lower_bound=1
)
_VOCABULARY = flags.DEFINE_string(
    "vocabulary",
    None,
    "The dataset's vocabulary.csv, whose names of classes are stored with the model; the default is the run's"
    " data.vocabulary below --data_dir, if that file exists; --vocabulary= stores no names.",
)
_CLASS_NAMES = flags.DEFINE_bool("class_names", False, "The signature serving_default also gives the classes' names.")
_MEDIAPIPE = flags.DEFINE_bool(
    "mediapipe",
    False,
    "Add the signature mediapipe, with the interface of the starter code for MediaPipe: rgb_and_audio [B, T, 1152]"
    " float32 and num_frames [B, 1] to predictions. For frame-level models.",
)
_FRAMES = flags.DEFINE_bool(
    "frames",
    False,
    "Add the signature frames, which takes frame-level records and averages their frames. For video-level models.",
)
_EMBEDDINGS = flags.DEFINE_bool(
    "embeddings", False, "Add the signature embeddings: features to the input of the classification layer."
)
_MEASURE_EXAMPLES = flags.DEFINE_integer(
    "measure_examples",
    100_000,
    "Number of validation examples to measure on, from the first. --pack also selects on as many held-out ones.",
    lower_bound=1,
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    None,
    "Largest accepted change of GAP@20; the default is 1e-3 for clustered weights, 1e-4 for float16, 1e-6 for float32.",
    lower_bound=0,
)
_TFLITE = flags.DEFINE_bool(
    "tflite",
    False,
    "Also write assets.extra/model.tflite: the `features` signature for LiteRT, with float16 weights. Its GAP@20 may"
    " differ from the SavedModel's by --tolerance. For video-level models without recurrent layers.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing SavedModel (and bundle).")
_BUNDLE = flags.DEFINE_string("bundle", None, "Pack the SavedModel into this .tgz archive too, for upload.")
flags.adopt_module_key_flags(checkpoint_flags)
flags.adopt_module_key_flags(pack_flags)
flags.adopt_module_key_flags(fault_flags)
flags.adopt_module_key_flags(label_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.errors import InputError
    from yt8m_tf.export.additions import Additions
    from yt8m_tf.run_dir import read_experiment
    from yt8m_tf.serving import bundle
    from yt8m_tf.serving.metadata import read_names

    if (_WORKDIR.value is not None) == pack_flags.PACK.value:
        given = (
            f"--workdir={_WORKDIR.value} and --pack exclude each other"
            if pack_flags.PACK.value
            else "nothing to export"
        )
        raise InputError(f"{given}; give --workdir=RUN to export a run, or --pack with --candidates and --scores")
    output = str(files.local_path(_OUTPUT.value, "--output"))
    for name in ("precision", "tflite") if pack_flags.PACK.value else pack_flags.NAMES:
        if flags.FLAGS[name].present:
            raise InputError(f"--{name}: is not for {'--pack' if pack_flags.PACK.value else '--workdir'}; leave it out")
    archive = None if _BUNDLE.value is None else str(files.local_path(_BUNDLE.value, "--bundle"))
    if archive and Path(output).absolute() in (Path(archive).absolute(), *Path(archive).absolute().parents):
        raise InputError(f"--bundle={archive}: is inside --output={output}; choose a path outside it")
    if archive:
        bundle.check_target(archive, _OVERWRITE.value)
    options: dict[str, Any] = {
        "which": checkpoint_flags.CHECKPOINT.value,
        "data_dir": _DATA_DIR.value,
        "size_limit": _SIZE_LIMIT.value,
        "vocabulary": _VOCABULARY.value and os.path.expanduser(_VOCABULARY.value),
        "additions": Additions(_CLASS_NAMES.value, _MEDIAPIPE.value, _EMBEDDINGS.value, _FRAMES.value),
        "measure_examples": _MEASURE_EXAMPLES.value,
        "tolerance": _TOLERANCE.value,
        "overwrite": _OVERWRITE.value,
        "faults": (faults := fault_flags.faults(label_flags.ON_UNLABELLED.value)),
    }
    print(pack_flags.pack(output, **options) if pack_flags.PACK.value else _export_run(output, **options))
    print(f"SavedModel: {output}")
    if read_names(output) is None:
        print("without names of classes; give --vocabulary=FILE to include them, for yt8m-infer --format=names")
    for line in faults.summary():
        print(line)
    if archive:
        size = bundle.write_bundle(output, archive, overwrite=_OVERWRITE.value)
        print(f"bundle: {archive} ({size:,} bytes)")
    data = read_experiment(Path(os.path.expanduser(_WORKDIR.value)) if _WORKDIR.value else pack_flags.first()).data
    has_test = any(files.find(pattern, _DATA_DIR.value) for pattern in data.test)
    shards = [files.below(_DATA_DIR.value, pattern) for pattern in (data.test if has_test else data.validation)]
    print(next_command("infer", saved_model=output, input=shards, output="submission.csv"))


def _export_run(output: str, **options: Any) -> str:
    from yt8m_tf import files
    from yt8m_tf.export.precision import parse_precision
    from yt8m_tf.export.trained import export_trained

    precision = parse_precision(_PRECISION.value)
    workdir = files.local_path(_WORKDIR.value, "--workdir")
    report = export_trained(workdir, output, precision=precision, tflite=_TFLITE.value, **options)
    return "\n".join(report.lines())


def run() -> None:
    """Runs the console script."""
    launch(main, lean=True)


if __name__ == "__main__":
    run()
