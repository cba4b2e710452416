"""Records of finished stages: `stages/<name>.done.json`, with the inputs of the stage and the files that it wrote.

Nothing that a stage wrote is ever deleted: earlier outputs move to `.old/`.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from yt8m_tf import files, run_dir
from yt8m_tf.config import strict_yaml
from yt8m_tf.errors import InputError, plain
from yt8m_tf.pipelines.content import Changes, Content, Shards, differences, digest, some
from yt8m_tf.pipelines.stage import Kind, Stage, check_restart
from yt8m_tf.stacking.settings import CONFIG as STACK_FILE

# "begun": can be continued. "changed": the files on disk are for other inputs or another configuration. "damaged": was
# done, but a file is missing or has a different size.
State = Literal["done", "begun", "changed", "damaged", "to do"]

OLD = ".old"

# The values that are read from the results of finished stages.
_NUMBERS: Mapping[str, Sequence[str]] = {
    "train": ("seconds", "gap_at_20"),
    "evaluate": ("seconds", "gap_at_20"),
    "export": ("seconds", "gap_at_20", "bytes"),
}
_NAMED = 5  # changes, or stages to restart, in an error


@dataclasses.dataclass(frozen=True)
class _StoredContent:
    kind: str
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    shards: str  # `digest` of the list; it is stored in stages/shards/<digest>.json, as hundreds of stages share it


@dataclasses.dataclass(frozen=True)
class _Record:
    """A file of `stages/`; `content` is None in files of the first release."""

    fingerprint: str
    content: _StoredContent | None = None
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Found:
    """The state of a stage on disk."""

    state: State
    record: _Record | None = None  # of "done" and "begun"
    changes: Changes = dataclasses.field(default_factory=Changes)  # of "changed"


class States:
    """The states of a pipeline's stages: read from disk by the constructor, changed by `begin` and `finish`.

    Args:
      workdir: the pipeline's directory.
      stages: all stages, each after those that it needs.
      shards: name of each stage to the shards that it reads (`content.shards_of`).
    """

    def __init__(self, workdir: Path, stages: Sequence[Stage], shards: Mapping[str, Shards]):
        self.workdir = workdir
        self._stages = {stage.name: stage for stage in stages}
        self._shards: dict[str, Shards | None] = {digest(own): own for own in shards.values()}
        self._contents: dict[str, Content] = {}
        self._fingerprints: dict[str, str] = {}
        self._recorded: dict[str, str] = {}  # fingerprints of the records on disk
        self._found: dict[str, _Found] = {}
        self._old: Path | None = None  # the directory for earlier outputs in this run
        for stage in stages:
            inputs = {name: self._fingerprints[name] for name in stage.inputs}
            options = strict_yaml.to_dict(dict(stage.options))
            content = self._contents[stage.name] = Content(stage.kind, options, inputs, shards[stage.name])
            found = self._found[stage.name] = self._look(stage, content)
            # Stages of earlier releases keep their fingerprints, so that those of dependent stages do not change.
            self._fingerprints[stage.name] = (found.record or content).fingerprint

    def of(self, name: str) -> State:
        """Returns the state of one stage."""
        return self._found[name].state

    def result(self, name: str) -> dict[str, Any]:
        """Returns the result of a finished stage."""
        record = self._found[name].record
        assert record is not None
        return dict(record.result)

    def changed(self) -> list[str]:
        """Returns a line for each "changed" stage, with its changes; folds of a model share a line."""
        changes = {name: found.changes for name, found in self._found.items() if found.state == "changed"}
        return [plain(f"{title}: {why}") for title, why in _together(changes)]

    def check(self, restart: Sequence[str]) -> None:
        """Checks that all "changed" stages may start over: `restart` names them, or stages on which they depend.

        Args:
          restart: patterns for names of stages, or of models, which stand for all of their folds.

        Raises:
          InputError: a changed stage may not start over (the message names changes), or a pattern matches nothing.
        """
        check_restart(list(self._stages.values()), restart)
        after: dict[str, bool] = {}  # whether a stage, or one before it, was named
        refused: dict[str, Changes] = {}
        for name, stage in self._stages.items():
            named = any(stage.is_named(pattern) for pattern in restart)
            after[name] = named or any(after[before] for before in stage.inputs)
            changes = self._found[name].changes
            if changes and not named and (changes.own or not all(after[before] for before in changes.inputs)):
                refused[name] = changes
        if refused:
            raise InputError(self._refusal(refused))
        for name, found in self._found.items():  # upgrade records of the first release
            if found.state in ("done", "begun") and found.record is not None and found.record.content is None:
                self._write(name, found.state, found.record.result, found.record.files)

    def begin(self, name: str) -> Path | None:
        """Prepares the start of a stage: moves changed or damaged outputs away, and records the stage as begun.

        Returns:
          The directory to which earlier outputs were moved; None if there were none.
        """
        moved = self._set_aside(name) if self.of(name) in ("changed", "damaged") else None
        self._found[name] = _Found("begun", self._write(name, "begun"))
        return moved

    def finish(self, name: str, result: Mapping[str, Any]) -> None:
        """Records a stage as done, with its result and the sizes of its files."""
        output = self.workdir / self._stages[name].output
        paths = sorted(path for path in output.rglob("*") if path.is_file()) if output.is_dir() else [output]
        sizes = {str(path.relative_to(self.workdir)): path.stat().st_size for path in paths}
        self._found[name] = _Found("done", self._write(name, "done", result, sizes))
        self._path(name, "begun").unlink(missing_ok=True)

    def _look(self, stage: Stage, content: Content) -> _Found:
        """Compares a stage's files and records with its present content."""
        changes: list[Changes] = []
        for what in ("done", "begun"):
            try:
                record = self._read(stage, what)
            except InputError as error:
                changes.append(Changes((str(error),)))
                continue
            if record is None:
                continue
            self._recorded.setdefault(stage.name, record.fingerprint)
            if found := self._changes(stage, content, record):
                changes.append(found)
            elif what == "begun":
                return _Found("begun", record)
            else:
                return _Found("done" if self._is_whole(record.files) else "damaged", record)
        there = [path for path in self._paths(stage) if _has_content(path)]
        if not there:
            return _Found("to do")
        unknown = Changes((f"{there[0]} exists, but no record says how it was made",))
        return _Found("changed", None, next(iter(changes), unknown))

    def _changes(self, stage: Stage, content: Content, record: _Record) -> Changes:
        """Returns the differences between a stage and a record of it."""
        if record.fingerprint == content.fingerprint:
            return Changes()
        if record.content is None:
            old = self._recovered(stage, content, record.fingerprint)
        else:
            stored = record.content
            old = Content(stored.kind, stored.options, stored.inputs, self._read_shards(stored.shards))
        if old is None:
            return Changes(
                ("the configuration or the data, but its record, from an earlier release, does not say which",)
            )
        return differences(old, content)

    def _recovered(self, stage: Stage, content: Content, fingerprint: str) -> Content | None:
        """Guesses the content of a record that has only a hash, which verifies the guess; None if no guess fits."""
        recorded = {name: self._recorded.get(name, own) for name, own in content.inputs.items()}
        for options in (content.options, *self._stored_options(stage)):
            for inputs in (content.inputs, recorded):
                guess = dataclasses.replace(content, options=options, inputs=inputs)
                if guess.fingerprint == fingerprint:
                    return guess
        return None

    def _stored_options(self, stage: Stage) -> Iterator[Mapping[str, Any]]:
        """Yields the options of a stage as they are stored in its output, with the keys and values of that time."""
        options = strict_yaml.to_dict(dict(stage.options))
        try:
            if stage.kind == "train":
                stored = _read_yaml(self.workdir / stage.output / run_dir.CONFIG)
                soft = {"labels": {"soft": options["experiment"]["labels"]["soft"]}}  # a run stores the absolute path
                yield {**options, "experiment": strict_yaml.merge(stored, soft)}
            elif stage.kind in ("mean", "stack_graph"):
                data = _read_yaml(self.workdir / options["members"][0] / run_dir.CONFIG)["data"]
                yield {**options, "experiment": {"data": data}}
            elif stage.kind == "stack":
                path = self.workdir / stage.output / STACK_FILE
                yield {**options, "stack": json.loads(path.read_text(encoding="utf-8"))["config"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
            return

    def _refusal(self, refused: Mapping[str, Changes]) -> str:
        """Returns, in one line, why changed stages do not start over: causes, and the number of dependent stages."""
        first = {n: c for n, c in refused.items() if c.own or not any(before in refused for before in c.inputs)}
        causes: dict[str, list[str]] = {}
        for name, changes in first.items():
            causes.setdefault(changes.cause(), []).append(name)
        listed = [f"{some(names)} ({cause})" for cause, names in list(causes.items())[:_NAMED]]
        if len(causes) > _NAMED:
            listed.append(f"{sum(map(len, list(causes.values())[_NAMED:]))} more, which --plan shows")
        if rest := len(refused) - len(first):
            listed.append(f"{rest} {'stage' if rest == 1 else 'stages'} after them")
        names = list(dict.fromkeys(self._stages[name].group for name in first))
        flags = " ".join(f"--restart={shlex.quote(name)}" for name in (names if len(names) <= _NAMED else ["*"]))
        return (
            f"--workdir={self.workdir}: stages that were done or begun have changed: {'; '.join(listed)}. Restore what"
            f" changed, name another directory, or give {flags} to run them from the start; their earlier output moves"
            f" to {self.workdir / OLD}"
        )

    def _set_aside(self, name: str) -> Path | None:
        """Moves all files of a stage below `OLD`, to a directory that is new in each run of the pipeline."""
        records = [self._path(name, what) for what in ("done", "begun")] + [self.workdir / self._stages[name].log]
        there = [path for path in (*self._paths(self._stages[name]), *records) if path.exists() or path.is_symlink()]
        if not there:
            return None
        if self._old is None:
            taken = [int(path.name) for path in (self.workdir / OLD).glob("*") if path.name.isdecimal()]
            self._old = self.workdir / OLD / str(1 + max(taken, default=0))
        for path in there:
            target = self._old / path.relative_to(self.workdir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)  # links may lead to another disk, where `rename` would fail
        return self._old

    def _is_whole(self, sizes: Mapping[str, int]) -> bool:
        """Returns whether a stage's files still have their sizes; new files are allowed, such as an evaluation."""
        try:
            return all((self.workdir / path).stat().st_size == size for path, size in sizes.items())
        except OSError:
            return False

    def _paths(self, stage: Stage) -> list[Path]:
        """Returns the paths that a stage writes: its output, and the parts of a submission file."""
        output = self.workdir / stage.output
        return [output, output.with_name(f"{output.name}.parts")] if stage.kind.startswith("infer") else [output]

    def _path(self, name: str, what: str) -> Path:
        return self.workdir / "stages" / f"{self._stages[name].file_name}.{what}.json"

    def _read(self, stage: Stage, what: str) -> _Record | None:
        path = self._path(stage.name, what)
        if not path.is_file():
            return None
        try:
            record = strict_yaml.parse(_Record, json.loads(path.read_text(encoding="utf-8")), "")
            if what == "done":
                _check_result(stage.kind, record.result)
        except (OSError, ValueError, RecursionError) as error:  # an InputError is one
            raise InputError(f"its record {path} is damaged: {' '.join(str(error).split())}") from error
        return record

    def _read_shards(self, name: str) -> Shards | None:
        if name not in self._shards:
            try:
                stored = json.loads(self._path_of_shards(name).read_text(encoding="utf-8"))
                known = tuple((shard, size) for shard, size in stored)
                whole = all(type(shard) is str and type(size) is int for shard, size in known)
                self._shards[name] = known if whole else None
            except (OSError, ValueError, TypeError, RecursionError):
                self._shards[name] = None
        return self._shards[name]

    def _path_of_shards(self, name: str) -> Path:
        return self.workdir / "stages" / "shards" / f"{name}.json"

    def _write(
        self,
        name: str,
        what: Literal["begun", "done"],
        result: Mapping[str, Any] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> _Record:
        """Writes a record of the present content of a stage."""
        content = self._contents[name]
        assert content.shards is not None
        own = digest(content.shards)
        stored = _StoredContent(content.kind, content.options, content.inputs, own)
        record = _Record(self._fingerprints[name], stored, dict(result or {}), dict(sizes or {}))
        path = self._path_of_shards(own)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            files.write_json(path, content.shards)
        files.write_json(self._path(name, what), strict_yaml.to_dict(record))
        return record


def _has_content(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _together(changes: Mapping[str, Changes]) -> list[tuple[str, str]]:
    """Returns titles of stages with their changes; folds of a model with equal changes are one entry."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, own in changes.items():
        groups.setdefault((name.partition(" fold ")[0], str(own)), []).append(name)
    return [
        (f"'{names[0]}'" if len(names) == 1 else f"'{group}', {len(names)} folds", why)
        for (group, why), names in groups.items()
    ]


def _check_result(kind: Kind, result: Mapping[str, Any]) -> None:
    """Raises InputError if a result lacks a value that is read."""
    names = _NUMBERS.get(kind, ("seconds",))
    if "map" in result:  # of rated segments
        names = ["map" if name == "gap_at_20" else name for name in names]
    numbers = {key: result.get(key) for key in names}
    if kind == "stack":
        gaps = result.get("gaps")
        if not gaps or not isinstance(gaps, Mapping) or not all(isinstance(own, Mapping) for own in gaps.values()):
            raise InputError(f"result.gaps is {gaps!r}")
        names = next(iter(gaps.values()))
        numbers |= {f"gaps.{split}.{name}": own.get(name) for split, own in gaps.items() for name in names}
    if wrong := [key for key, value in numbers.items() if not isinstance(value, int | float) or abs(value) >= 2**63]:
        raise InputError(f"result.{wrong[0]} is {numbers[wrong[0]]!r}")


def _read_yaml(path: Path) -> Mapping[str, Any]:
    values = strict_yaml.read_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: not a mapping")
    return values
