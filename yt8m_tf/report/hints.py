"""The commands that make what a report lacks, with the directories that it was given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.console.command_line import comma_list, command_line
from yt8m_tf.report.workdir import Export, Workdir

DATA = "DATA"  # stands for a directory that was not given


@dataclasses.dataclass(frozen=True)
class Hints:
    """Commands for a directory.

    Attributes:
      workdir: what the report is about.
      output: the page.
      data_dir: --data_dir of the report; None: the reader is to fill it in.
      vocabulary: --vocabulary likewise.
      model: --model likewise.
    """

    workdir: Workdir
    output: Path
    data_dir: str | None
    vocabulary: str | None
    model: str | None

    def run(self, model: str) -> Path:
        """The directory of a run; of folds, that of the first."""
        return self.workdir.runs[model].directories[0]

    def train(self) -> str:
        """Trains a run."""
        return command_line("train", config="CONFIG", workdir=self.workdir.path, data_dir=self._data)

    def pipeline(self) -> str:
        """Runs what is left of a pipeline."""
        return command_line("pipeline", config="CONFIG", workdir=self.workdir.path, data_dir=self._data)

    def evaluate(self, model: str, against: str | None = None) -> str:
        """Evaluates a run, with the interval of its difference to another one."""
        output = self.workdir.path / "evaluation" / model if self.workdir.pipeline else None
        other = None if against is None else self.run(against)
        values = {"workdir": self.run(model), "data_dir": self._data, "vocabulary": self.vocabulary}
        return command_line("evaluate", **values, against=other, output=output)

    def export(self, model: str) -> str:
        """Exports a run to where a report finds it."""
        exported = self.workdir.path if self.workdir.pipeline else Path()
        output = exported / "exported" / model / "1"
        return command_line("export", workdir=self.run(model), output=output, data_dir=self._data)

    def report(self) -> str:
        """Writes the page again, with --data_dir, so that models without stored scores score the videos."""
        given = {"data_dir": self._data, "vocabulary": self.vocabulary, "model": self.model}
        return command_line("report", workdir=self.workdir.path, output=self.output, **given)

    def stack(self) -> str:
        """Stacks the scores of the first-level models."""
        path, values = self.workdir.path, {}
        for run in list(self.workdir.runs.values())[:1]:  # they all read the same videos
            data = run.experiment.data
            values = {"input": list(data.train), "apply": f"validation:{comma_list(data.validation)}"}
        return command_line(
            "stack", scores=path / "scores" / "*", output=path / "stacked", data_dir=self._data, **values
        )

    def sizes(self) -> str:
        """Measures ensembles of fewer models."""
        return command_line("stack", sizes=True, output=self.workdir.path / "stacked")

    def pack(self) -> str:
        """Packs an ensemble into a size."""
        path = self.workdir.path
        values = {"candidates": path / "runs" / "*" / "fold_0", "scores": path / "scores" / "*" / "train"}
        return command_line("export", pack=True, **values, data_dir=self._data, output=path / "exported" / "pack" / "1")

    def infer(self, export: Export) -> str:
        """Predicts with an export what the run's test shards hold."""
        inside = self.workdir.path / export.path  # or it lies elsewhere, and its path says where
        path = inside if inside.is_dir() else Path(export.path)
        test = self.workdir.runs[export.model].experiment.data.test
        videos = [files.below(self._data, pattern) for pattern in test]
        return command_line("infer", saved_model=path, input=videos, output="predictions.csv")

    @property
    def _data(self) -> str:
        return self.data_dir if self.data_dir is not None else DATA
