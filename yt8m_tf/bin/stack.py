"""Stacks the scores of several models with LightGBM, out of fold, and compares the result with their means.

Reads score shards of yt8m-score. Writes score shards of the combination (soft labels for students), the boosters, the
weights of the best weighted mean, and a report: GAP@20 of every model and combination, training curves, feature
importances. After an interruption, the same command resumes.

Example:

  yt8m-stack --scores='scores/*' --data_dir=DATA/2/video --input='train*.tfrecord' \\
      --apply=validate:'validate*.tfrecord' --output=stacked

This reads scores/NAME/train and scores/NAME/validate of every model NAME. It writes stacked/train and
stacked/validate.

--sizes shows how the result depends on the number of models, and how much weak models add. It measures LightGBM and the
means for ensembles of 1, 2, 4, ... models: best first, worst first, in random order, and the best with all weak ones.
Each ensemble is stacked separately. For an existing stacking, --output is enough. Fewer trees with a higher learning
rate make it faster.

  yt8m-stack --sizes --output=runs/real_subset/stacked --sizes_set=learning_rate=0.2 --sizes_set=num_trees=100

This writes ensemble_sizes.json (which yt8m-report shows), ensemble_sizes.md and ensemble_sizes.png to --output.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin import label_flags, size_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command, parse_comma_list
from yt8m_tf.console.quiet import import_quietly

if TYPE_CHECKING:
    from yt8m_tf.stacking.settings import StackConfig

_SCORES = flags.DEFINE_list(
    "scores", None, "Directories of the models (a pattern may name them), a folder for each split."
)
_INPUT = flags.DEFINE_list("input", None, "Patterns of the labelled shards that have folds.")
_SPLIT = flags.DEFINE_string("split", "train", "The folder with the out-of-fold scores of --input.")
_APPLY = flags.DEFINE_multi_string(
    "apply", [], "SPLIT:PATTERN[,PATTERN]: also combine the scores in folder SPLIT, of these shards; repeatable."
)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which --input and --apply are relative.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory for the stacked scores, boosters and report.", required=True)
_CONFIG = flags.DEFINE_string("config", None, "YAML of candidates, features and trees: PATH.yaml[:NAME].")
_SET = flags.DEFINE_multi_string("set", [], "Override of a configuration key, such as num_trees=500; repeatable.")
_NUM_THREADS = flags.DEFINE_integer("num_threads", 0, "Threads of LightGBM; 0: one for each core.", lower_bound=0)
_SCHEDULER = flags.DEFINE_string("scheduler", None, "Address of a Dask scheduler whose workers train the boosters.")
flags.adopt_module_key_flags(label_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.config import configurations, strict_yaml
    from yt8m_tf.errors import InputError
    from yt8m_tf.stacking.settings import StackConfig

    # Errors in the configuration are reported before the long import.
    values = configurations.load_yaml(_CONFIG.value) if _CONFIG.value else {}
    settings = strict_yaml.parse(StackConfig, strict_yaml.apply_overrides(StackConfig, values, _SET.value), "")
    output = files.local_path(_OUTPUT.value, "--output")
    if not (size_flags.SIZES.value and _SCORES.value is None and _INPUT.value is None):
        for name, value in (("scores", _SCORES.value), ("input", _INPUT.value)):
            if not value:
                raise InputError(
                    f"--{name}: stacking needs it; to measure only --sizes of an existing stacking, leave out --scores"
                    " and --input"
                )
    import_quietly()
    if _SCORES.value:
        _stack(settings, output)
    if size_flags.SIZES.value:
        print(size_flags.measure(output, _NUM_THREADS.value))


def _stack(settings: StackConfig, output: Path) -> None:
    from yt8m_tf import files
    from yt8m_tf.data.shards import list_shards
    from yt8m_tf.errors import InputError
    from yt8m_tf.stacking import cluster, report
    from yt8m_tf.stacking.inputs import StackInputs
    from yt8m_tf.stacking.stack import stack

    models = files.matching(_SCORES.value, "--scores")
    names = [model.name for model in models]

    def inputs(split: str, patterns: Sequence[str], flag: str) -> StackInputs:
        shards = list_shards(patterns, _DATA_DIR.value, flag)
        return StackInputs([model / split for model in models], names, shards, label_flags.ON_UNLABELLED.value)

    applied = {}
    for text in _APPLY.value:
        split, colon, patterns = text.partition(":")
        if not (split and colon and patterns):
            raise InputError(f"--apply={text}: write SPLIT:PATTERN, such as validate:validate*.tfrecord")
        applied[split] = inputs(split, parse_comma_list(patterns), f"--apply={split}")
    training = inputs(_SPLIT.value, _INPUT.value, "--input")
    with cluster.fold_trainer(_SCHEDULER.value, settings, _NUM_THREADS.value) as train_fold:
        result = stack(training, applied, output, settings, num_threads=_NUM_THREADS.value, train_fold=train_fold)
    report.write_report(result, output)
    print(report.format_table(result))
    for split, counts in result.left_out.items():
        for line in counts.summary(label_flags.ON_UNLABELLED.value):
            print(f"{split}: {line}")
    print(f"written: {output / report.TABLE}, {', '.join(report.PICTURES)}; soft labels: {output / 'train'}")
    soft = f"--set=labels.soft={(output / 'train').absolute()}"
    student = "first_level/resnet_like_soft_labels.yaml"
    print(next_command("train", soft, config=student, data_dir=_DATA_DIR.value, workdir="runs/student"))


def run() -> None:
    """Runs the console script."""
    launch(main, framework=False)


if __name__ == "__main__":
    run()
