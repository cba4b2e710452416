"""Trains a model on YouTube-8M records, on one device, several devices, or several machines.

A run is a configuration (what changes the result) and a run directory (where everything is written). A run that was
killed, at any moment, resumes when it is started again with the same command.

Example:

  yt8m-train --config=first_level/resnet_like_mixup.yaml --data_dir=DATA/2/video --workdir=runs/resnet_like \\
      --set=train.batch_size=512 --set=optimizer.learning_rate=5e-4
  yt8m-train --config=first_level/moe.yaml --data_dir=DATA/2/video --workdir=runs/moe/fold_2 \\
      --num_folds=5 --fold=2
  tensorboard --logdir=runs      # docs/TENSORBOARD.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from yt8m_tf.bin import fault_flags, label_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command
from yt8m_tf.console.quiet import import_quietly

if TYPE_CHECKING:
    from yt8m_tf.config.data import DataConfig

_CONFIG = flags.DEFINE_string(
    "config", None, "Configuration: PATH.yaml, or PATH.yaml:NAME for a file of several.", required=True
)
_SET = flags.DEFINE_multi_string(
    "set", [], "Override of a configuration key, such as optimizer.learning_rate=3e-5; repeatable."
)
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which the configuration's shard patterns are relative.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run directory: configuration, checkpoints, history, TensorBoard.", required=True
)
_NUM_FOLDS = flags.DEFINE_integer(
    "num_folds",
    None,
    "Number of folds of the training shards, of which --fold is held out; short for data.num_folds.",
    2,
)
_FOLD = flags.DEFINE_integer("fold", None, "The fold to hold out, from 0, and to validate on; short for data.fold.", 0)
_DEVICES = flags.DEFINE_string(
    "devices", "", "Devices to mirror the model on: 'gpu:0,gpu:1', or 'all' GPUs. The default is one."
)
_XLA = flags.DEFINE_bool("xla", True, "Compile the step with XLA.")
_STEPS_PER_CALL = flags.DEFINE_integer(
    "steps_per_call", 4, "Updates made by one call of the compiled function.", lower_bound=1
)
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 10.0, "Longest time between checkpoints, in minutes; each evaluation saves one, too."
)
_EVALUATION_BATCH = flags.DEFINE_integer(
    "evaluation_batch_size",
    None,
    "Examples of a batch of evaluation; the default is 1024 at video level, 128 at frame level.",
    lower_bound=1,
)
_INIT_FROM = flags.DEFINE_list(
    "init_from",
    [],
    "Runs, checkpoints or exports with initial weights of a new run; if several have a variable, the first one counts."
    " pretrained: the model that comes with the package.",
)
_INIT_EXCLUDE = flags.DEFINE_list(
    "init_exclude", [], "Patterns of variables that --init_from leaves out, such as 'logits/*'."
)
_ON_CHANGED_INPUTS = flags.DEFINE_enum(
    "on_changed_inputs",
    "error",
    ["error", "accept"],
    "Action if a run continues with shards or soft labels that differ from those of its start: stop, or accept them.",
)
flags.adopt_module_key_flags(fault_flags)
flags.adopt_module_key_flags(label_flags)
_HISTOGRAMS = flags.DEFINE_bool("histograms", False, "Write the distributions of the weights for TensorBoard.")
_PROFILE = flags.DEFINE_string(
    "profile", None, "START:STOP: trace these steps, from 0, for TensorBoard (docs/TENSORBOARD.md), such as 100:110."
)


def main(_: Sequence[str]) -> None:
    from yt8m_tf.config.experiment import load_values

    folds = [f"data.{flag.name}={flag.value}" for flag in (_NUM_FOLDS, _FOLD) if flag.value is not None]
    values = load_values(_CONFIG.value, [*_SET.value, *folds])  # errors are reported before the long import
    import_quietly()

    from yt8m_tf import files, run_dir
    from yt8m_tf.metrics.accumulator import TITLES
    from yt8m_tf.models.registry import parse_experiment
    from yt8m_tf.pretrained import packaged
    from yt8m_tf.training import distribution, loop
    from yt8m_tf.training.profile import parse_steps

    profile = None if _PROFILE.value is None else parse_steps(_PROFILE.value)
    strategy = distribution.make_strategy(_DEVICES.value)
    experiment = parse_experiment(values)
    faults = fault_flags.faults(label_flags.ON_UNLABELLED.value)
    sources = [packaged.saved_model(source, "--init_from") for source in _INIT_FROM.value]
    init_from = tuple(files.local_path(source, "--init_from") for source in sources)
    files.check_listed(init_from, "--init_from")
    options = loop.RunOptions(
        data_dir=_DATA_DIR.value,
        workdir=files.local_path(_WORKDIR.value, "--workdir"),
        xla=_XLA.value,
        steps_per_call=_STEPS_PER_CALL.value,
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
        evaluation_batch_size=_EVALUATION_BATCH.value,
        init_from=init_from,
        init_exclude=tuple(_INIT_EXCLUDE.value),
        on_changed_inputs=_ON_CHANGED_INPUTS.value,
        histograms=_HISTOGRAMS.value,
        profile=profile,
    )
    result = loop.train(experiment, options, strategy, faults)
    ending = "stopped early" if result.stopped_early else "finished"
    best = f"best {TITLES[result.metric]} {result.best_gap:.5f} at step {result.best_step:,}"
    print(f"{ending} at step {result.step:,}; {best}")
    print(f"run: {options.workdir}")
    print(_next(experiment.data, options.workdir))
    if profile is not None:
        traces = run_dir.event_directory(options.workdir) / "plugins" / "profile"
        print(f"trace: {traces}" if traces.exists() else "trace: none; the run was already past these steps")
    for line in result.skipped:
        print(line)


def _next(data: DataConfig, workdir: Path) -> str:
    """Returns the next command after a run: evaluation; after a fold (`.../fold_N`), the next fold, or scoring."""
    num_folds, fold = data.num_folds, data.fold
    others = [workdir.with_name(f"fold_{number}") for number in range(num_folds)]
    if not num_folds or workdir.name != f"fold_{fold}":
        return next_command("evaluate", workdir=workdir, data_dir=_DATA_DIR.value)
    missing = [number for number, other in enumerate(others) if not other.exists() and number != fold]
    if not missing:
        pattern, output = workdir.with_name("fold_*"), Path("scores", workdir.absolute().parent.name, "train")
        return next_command("score", model=pattern, data_dir=_DATA_DIR.value, input=data.train, output=output)
    return next_command(
        "train",
        *(f"--set={text}" for text in _SET.value),
        config=_CONFIG.value,
        data_dir=_DATA_DIR.value,
        workdir=others[missing[0]],
        num_folds=num_folds,
        fold=missing[0],
    )


def run() -> None:
    """Runs the console script."""
    launch(main, framework=False)


if __name__ == "__main__":
    run()
