"""Measures what share of the accuracy lost to wrong labels is regained with soft labels, on data with known truth.

For each share of wrong labels, it makes sample data, runs a pipeline on it (first-level models on folds, LightGBM,
students on its soft labels, and the same models on hard labels), and evaluates all models on the *true* labels of test
videos. The test videos are the same for every share: those of the sample data without wrong labels. The results of a
share are one JSON file. Existing results are not computed again, and interrupted pipelines are continued. Ends with the
tables and the figure of docs/RESULTS.md, "Label noise".

  python tools/label_noise.py --workdir=runs/label_noise
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from yt8m_tf import files
from yt8m_tf.bin.launch import launch
from yt8m_tf.errors import InputError

_NAMED = ("hard", "half", "soft")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a study.

    Attributes:
      config: configuration of the pipeline, `PATH.yaml[:NAME]`, with a baseline `hard`, students `half` and `soft`,
        and, for more seeds, `hard_seed_1` and so on; its `video.data.features` are the sizes of the features to make.
      percents: shares of wrong labels, including 0, on whose test videos all models are evaluated.
      workdir: directory of sample data and pipelines, `data/noise_NN` and `runs/noise_NN`.
      output: directory of the JSON files, `noise_NN.json`.
      videos: maps splits ("train", "validate", "test") to numbers of videos.

    Raises:
      InputError: 0 is missing, or a share is out of range.
    """

    config: str
    percents: Sequence[int]
    workdir: Path
    output: Path
    videos: Mapping[str, int]

    def __post_init__(self) -> None:
        if wrong := [percent for percent in self.percents if not 0 <= percent < 50]:
            raise InputError(f"--noise={wrong[0]}: give shares from 0 to below 50 %")
        if 0 not in self.percents:
            shown = ",".join(map(str, self.percents))
            raise InputError(f"--noise={shown}: add 0, the baseline for the cost of wrong labels")


def shares(words: Sequence[str]) -> list[int]:
    """Parses the numbers of --noise.

    Raises:
      InputError: one is not an integer.
    """
    try:
        return [int(word) for word in words]
    except ValueError:
        raise InputError(f"--noise={','.join(words)}: give whole percentages") from None


def name_of(percent: int) -> str:
    """Returns the name of a share's directories and JSON file."""
    return f"noise_{percent:02d}"


def results(options: Options) -> list[dict[str, Any]]:
    """Computes missing results, and returns the contents of all JSON files, by share.

    Raises:
      InputError: the configuration lacks models to compare, existing results or data have other numbers of videos, or a
        process failed.
    """
    from yt8m_tf.pipelines.settings import load_pipeline

    settings = load_pipeline(options.config)
    _check_models(options.config, [*settings.baselines, *settings.students])
    if set(settings.video.get("data", {}).get("features", ())) != {"rgb", "audio"}:
        raise InputError(f"--config={options.config}: give video.data.features, the sizes of rgb and audio to make")
    options.output.mkdir(parents=True, exist_ok=True)
    found = []
    for percent in sorted(set(options.percents)):
        path = options.output / f"{name_of(percent)}.json"
        if path.exists():
            print(f"== {percent} % wrong labels: done ({path})", flush=True)
        else:
            print(f"== {percent} % wrong labels", flush=True)
            files.write_json(path, _measure(options, settings, percent))
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["videos"] != dict(options.videos):
            raise InputError(f"{path}: has different numbers of videos, {result['videos']}; name another --output")
        found.append(result)
    return found


def _check_models(config: str, names: Sequence[str]) -> None:
    """Checks that each model has the same seeds, because models are compared seed by seed."""
    suffixes = {
        name: [own.removeprefix(name) for own in names if re.fullmatch(rf"{name}(_seed_\d+)?", own)] for name in _NAMED
    }
    for name in _NAMED:
        if "" not in suffixes[name]:
            raise InputError(f"--config={config}: has no model '{name}'; name a baseline hard, students half and soft")
        if suffixes[name] != suffixes["hard"]:
            raise InputError(f"--config={config}: give '{name}' the same seeds as 'hard', in the same order")


def _measure(options: Options, settings: Any, percent: int) -> dict[str, Any]:
    from noise_study.truth import Level, measure

    sizes = settings.video["data"]["features"]
    data = [_make_data(options, sizes, which) for which in (0, percent)]
    level = Level(percent, data[1], data[0], options.workdir / "runs" / name_of(percent))
    # Compiling models as small as these with XLA takes longer than training them.
    where = [f"--data_dir={level.data}", f"--workdir={level.run}", "--noxla"]
    _run([f"--config={options.config}", *where], "yt8m_tf.bin.pipeline")
    return measure(level, settings)


def _make_data(options: Options, sizes: Mapping[str, int], percent: int) -> Path:
    """Returns the directory of sample data of a share; makes the data, with features of these sizes, if missing."""
    output = options.workdir / "data" / name_of(percent)
    summary = output / "sample_data.json"
    if not summary.exists():
        flags_ = [f"--output_dir={output}", "--levels=video", f"--noise_labels={percent / 100}", "--overwrite"]
        flags_ += [f"--num_{split}={number}" for split, number in options.videos.items()]
        flags_ += [f"--{name}_size={size}" for name, size in sizes.items()]
        _run(flags_, "yt8m_tf.bin.sample_data")
    splits = json.loads(summary.read_text(encoding="utf-8"))["splits"]
    if {split: values["num_videos"] for split, values in splits.items()} != dict(options.videos):
        raise InputError(f"{output}: has different numbers of videos; name another --workdir")
    return output


def _run(arguments: Sequence[str], module: str) -> None:
    """Runs a command in a separate process.

    Raises:
      InputError: the command failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    print(f"$ {shlex.join(['python', *command[1:]])}", flush=True)
    if status := subprocess.run(command, check=False).returncode:
        raise InputError(
            f"{module} ended with status {status}; its message is above; run the same command again to continue"
        )


def main(_: Sequence[str]) -> None:
    from noise_study.report import draw, tables

    values = flags.FLAGS
    videos = {"train": values.num_train, "validate": values.num_validate, "test": values.num_test}
    workdir, output = (files.local_path(values[name].value, f"--{name}") for name in ("workdir", "output"))
    levels = results(Options(values.config, shares(values.noise), workdir, output, videos))
    if values.figure:
        draw(levels, files.local_path(values.figure, "--figure"))
    print("\n" + tables(levels))


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Directory for sample data and pipelines.", required=True)
    flags.DEFINE_string("config", "pipelines/label_noise.yaml", "Configuration of the pipeline.")
    flags.DEFINE_string("output", "docs/results/label_noise", "Directory of the JSON files, noise_NN.json.")
    flags.DEFINE_string("figure", "docs/images/label_noise.png", "The figure; empty for none.")
    flags.DEFINE_list("noise", ["0", "10", "30"], "Shares of wrong labels in percent; 0 must be among them.")
    flags.DEFINE_integer("num_train", 2100, "Training videos.")
    flags.DEFINE_integer("num_validate", 1400, "Validation videos.")
    flags.DEFINE_integer("num_test", 2800, "Test videos.")
    launch(main)
