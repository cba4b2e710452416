"""What has been done: `stages/<name>.done.json`, with the fingerprint that it was done for and the files it left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from yt8m_tf import files
from yt8m_tf.errors import InputError
from yt8m_tf.pipelines.stages import Stage

# "done"; "begun", and goes on; "changed": was done, or begun, for other inputs or another configuration; "damaged": was
# done, and a file of it is gone, or of another size.
State = Literal["done", "begun", "changed", "damaged", "to do"]


class States:
    """The state of each stage of a pipeline.

    Args:
      workdir: the pipeline's directory.
      stages: all of them.
      fingerprints: of each stage, by name.
    """

    def __init__(self, workdir: Path, stages: Sequence[Stage], fingerprints: Mapping[str, str]):
        self._workdir, self._fingerprints = workdir, dict(fingerprints)
        self._outputs = {stage.name: stage.output for stage in stages}

    def of(self, name: str) -> State:
        """The state of one stage."""
        begun, done = self._read(name, "begun"), self._read(name, "done")
        if done is not None and done["fingerprint"] == self._fingerprints[name]:
            return "done" if self._whole(done["files"]) else "damaged"
        if begun is not None and begun["fingerprint"] == self._fingerprints[name]:
            return "begun"
        return "to do" if begun is None and done is None else "changed"

    def result(self, name: str) -> dict[str, Any]:
        """What a stage that is done found."""
        found = self._read(name, "done")
        assert found is not None
        return found["result"]

    def begin(self, name: str) -> None:
        """Before a stage runs: what does not belong to this run of it, or is damaged, is removed."""
        if self.of(name) != "begun":
            self._path(name, "done").unlink(missing_ok=True)
            output = self._output(name)
            if output.is_dir():
                shutil.rmtree(output)
            output.unlink(missing_ok=True)
            shutil.rmtree(output.with_name(f"{output.name}.parts"), ignore_errors=True)  # of a submission file
        self._write(name, "begun", {"fingerprint": self._fingerprints[name]})

    def finish(self, name: str, result: Mapping[str, Any]) -> None:
        """After a stage has run."""
        output = self._output(name)
        paths = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
        files = {str(path.relative_to(self._workdir)): path.stat().st_size for path in paths}
        done = {"fingerprint": self._fingerprints[name], "result": dict(result), "files": files}
        self._write(name, "done", done)
        self._path(name, "begun").unlink(missing_ok=True)

    def _whole(self, files: Mapping[str, int]) -> bool:
        """Are files of a stage as it left them? Others may have come, such as the evaluation of a run."""
        try:
            return all((self._workdir / path).stat().st_size == size for path, size in files.items())
        except OSError:
            return False

    def _output(self, name: str) -> Path:
        return self._workdir / self._outputs[name]

    def _path(self, name: str, what: str) -> Path:
        return self._workdir / "stages" / f"{name.replace(' ', '_')}.{what}.json"

    def _read(self, name: str, what: str) -> dict[str, Any] | None:
        path = self._path(name, what)
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); remove it, and the stage is run again") from error

    def _write(self, name: str, what: str, contents: Mapping[str, Any]) -> None:
        path = self._path(name, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, contents)
