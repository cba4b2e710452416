"""Exports a trained model as a SavedModel that needs no code, and measures it against the trained one.

What only training needs is stripped, and the weights are stored as float16 or as indices into codebooks. The SavedModel
appears if it is within the size limit and its GAP@20 on the validation data is that of the trained model. For TF
Serving, name a version: NAME/1.

Example:

  yt8m-export --workdir=runs/resnet_like --output=exported/resnet_like/1 --data_dir=~/data/yt8m/2/video
  saved_model_cli show --dir=exported/resnet_like/1 --all
  yt8m-export --workdir=runs/final --output=exported/final/1 --data_dir=~/data/yt8m/2/video --bundle=final.tgz
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from yt8m_tf.bin.launch import launch

_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory of yt8m-train.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Directory of the SavedModel.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "What the run's patterns of validation shards are relative to.")
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "By GAP on the validation data, or the newest.")
_PRECISION = flags.DEFINE_string(
    "precision",
    "float16",
    "Of the stored weights: float16, float32, cluster (256 values a layer), or rules, of which the first that fits a"
    " variable's path decides: 'dense*:cluster,bn*:float32,*:float16'; cluster@512: a codebook for every 512 outputs."
    " Or a YAML list of such rules.",
)
_SIZE_LIMIT = flags.DEFINE_integer(
    "size_limit", 1_000_000_000, "Bytes that the SavedModel may take, uncompressed.", lower_bound=1
)
_VOCABULARY = flags.DEFINE_string("vocabulary", None, "The dataset's vocabulary.csv, to travel with the model.")
_MEASURE_EXAMPLES = flags.DEFINE_integer(
    "measure_examples", None, "Measure on the first so many validation examples; the default is all.", lower_bound=1
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    None,
    "How much GAP@20 may change; the default is 1e-3 where weights are clustered, 1e-4 for float16, 1e-6 for float32.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a SavedModel (and bundle) that is there already.")
_BUNDLE = flags.DEFINE_string("bundle", None, "Pack the SavedModel into this .tgz archive too, for upload.")


def main(_: Sequence[str]) -> None:
    from yt8m_tf import run_dir
    from yt8m_tf.export import bundle
    from yt8m_tf.export.precision import parse_precision
    from yt8m_tf.export.trained import export_trained

    archive = os.path.expanduser(_BUNDLE.value) if _BUNDLE.value else None
    if archive:
        bundle.check_target(archive, _OVERWRITE.value)
    report = export_trained(
        os.path.expanduser(_WORKDIR.value),
        os.path.expanduser(_OUTPUT.value),
        data_dir=_DATA_DIR.value,
        which=_CHECKPOINT.value,
        precision=parse_precision(_PRECISION.value),
        size_limit=_SIZE_LIMIT.value,
        vocabulary=os.path.expanduser(_VOCABULARY.value) if _VOCABULARY.value else None,
        measure_examples=_MEASURE_EXAMPLES.value,
        tolerance=_TOLERANCE.value,
        overwrite=_OVERWRITE.value,
    )
    print("\n".join(report.lines))
    print(f"SavedModel: {_OUTPUT.value}")
    if archive:
        size = bundle.write_bundle(os.path.expanduser(_OUTPUT.value), archive, overwrite=_OVERWRITE.value)
        print(f"bundle: {archive} ({size:,} bytes)")
    test = run_dir.read_experiment(Path(_WORKDIR.value).expanduser()).data.test
    shards = ",".join(os.path.join(_DATA_DIR.value, pattern) for pattern in test)
    print(f"next: yt8m-infer --saved_model={_OUTPUT.value} --input='{shards}' --output=submission.csv")


def run() -> None:
    """The console script."""
    launch(main)


if __name__ == "__main__":
    run()
