"""Commands that create what a report lacks, with the directories that the report was given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from yt8m_tf import files
from yt8m_tf.console.command_line import comma_list, command_line
from yt8m_tf.report.workdir import Export, Workdir

DATA = "DATA"  # stands for a directory that was not given


@dataclasses.dataclass(frozen=True)
class Hints:
    """Command lines for the directory of a report.

    Attributes:
      workdir: the directory that the report describes.
      output: the page.
      data_dir: --data_dir of the report; None leaves a placeholder for the reader.
      vocabulary: --vocabulary of the report; None if it was not given.
      model: --model of the report; None if it was not given.
    """

    workdir: Workdir
    output: Path
    data_dir: str | None
    vocabulary: str | None
    model: str | None

    def run(self, model: str) -> Path:
        """Returns the directory of a run, or of its first fold."""
        return self.workdir.runs[model].directories[0]

    def train(self) -> str:
        """Returns the command that trains a run."""
        return command_line("train", config="CONFIG", workdir=self.workdir.path, data_dir=self._data)

    def pipeline(self) -> str:
        """Returns the command that runs the rest of a pipeline."""
        return command_line("pipeline", config="CONFIG", workdir=self.workdir.path, data_dir=self._data)

    def evaluate(self, model: str, against: str | None = None) -> str:
        """Returns the command that evaluates a run, with the interval of its difference to another one if given."""
        output = self.workdir.path / "evaluation" / model if self.workdir.pipeline else None
        other = None if against is None else self.run(against)
        values = {"workdir": self.run(model), "data_dir": self._data, "vocabulary": self.vocabulary}
        return command_line("evaluate", **values, against=other, output=output)

    def export(self, model: str) -> str:
        """Returns the command that exports a run to a directory where a report finds it."""
        exported = self.workdir.path if self.workdir.pipeline else Path()
        output = exported / "exported" / model / "1"
        return command_line("export", workdir=self.run(model), output=output, data_dir=self._data)

    def report(self) -> str:
        """Returns the command that writes the page again, with --data_dir for models without stored scores."""
        given = {"data_dir": self._data, "vocabulary": self.vocabulary, "model": self.model}
        return command_line("report", workdir=self.workdir.path, output=self.output, **given)

    def stack(self) -> str:
        """Returns the command that stacks the scores of the first-level models."""
        path, values = self.workdir.path, {}
        for run in list(self.workdir.runs.values())[:1]:  # they all read the same videos
            data = run.experiment.data
            values = {"input": list(data.train), "apply": f"validation:{comma_list(data.validation)}"}
        return command_line(
            "stack", scores=path / "scores" / "*", output=path / "stacked", data_dir=self._data, **values
        )

    def sizes(self) -> str:
        """Returns the command that measures ensembles of fewer models."""
        return command_line("stack", sizes=True, output=self.workdir.path / "stacked")

    def pack(self) -> str:
        """Returns the command that packs an ensemble into a given size."""
        path = self.workdir.path
        values = {"candidates": path / "runs" / "*" / "fold_0", "scores": path / "scores" / "*" / "train"}
        return command_line("export", pack=True, **values, data_dir=self._data, output=path / "exported" / "pack" / "1")

    def infer(self, export: Export) -> str:
        """Returns the command that scores the run's test shards with an export."""
        inside = self.workdir.path / export.path  # an export outside the directory has its full path
        path = inside if inside.is_dir() else Path(export.path)
        test = self.workdir.runs[export.model].experiment.data.test
        videos = [files.below(self._data, pattern) for pattern in test]
        return command_line("infer", saved_model=path, input=videos, output="predictions.csv")

    @property
    def _data(self) -> str:
        return self.data_dir if self.data_dir is not None else DATA
