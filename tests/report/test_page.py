"""The page: its numbers, what it says where something is missing, and that it is one whole and harmless file."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tensorflow as tf
from report_world import NAMES, write_pipeline, write_segment_run

from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained, write_evaluation
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.report.analysis import precision_recall
from yt8m_tf.report.page import Options, write_report
from yt8m_tf.report.predictions import find_predictions
from yt8m_tf.report.sources import main_model, read_workdir
from yt8m_tf.training import loop
from yt8m_tf.training.checkpoints import load_trained

_QUIET = Options(progress=False)
_VOID = {"meta", "img", "input", "br", "hr", "link"}


class _Page(HTMLParser):
    """Tags that are closed in order, the text of tables' rows, and what the page would load."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data
        if self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        return next([cell.strip() for cell in row] for row in self.rows if row[0].startswith(first))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return write_pipeline(tmp_path / "pipeline")


def _page(path: Path, output: Path, options: Options = _QUIET) -> _Page:
    write_report(path, output, options)
    return _Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, _Page]:
    """A pipeline and its page, `report.html` in its parent directory, which no test changes."""
    root = tmp_path_factory.mktemp("whole")
    directory = write_pipeline(root / "pipeline")
    return directory, _page(directory, root / "report.html")


def test_ensembles(whole: tuple[Path, _Page], tmp_path: Path) -> None:
    directory, page = whole
    pipeline = Path(shutil.copytree(directory, tmp_path / "pipeline"))
    found = [[cell.strip() for cell in row] for row in page.rows]
    assert ["1", "worst first", "0.2690", "0.2990", "0.3090", "0.3190"] in found
    assert ["1 + 1", "best, and all weak ones", "0.5690", "0.5990", "0.6090", "0.6190"] in found
    assert ["1", "1", "0.4990 → 0.5990", "0.5090 → 0.6090", "0.5190 → 0.6190"] in found
    assert "boosters of up to 1,200 trees, learning rate 0.25. Weak are second." in page.text
    assert (directory.parent / "report_files" / "gap_against_models_by_method.png").is_file()
    alt = next(tag["alt"] or "" for _, tag in page.tags if tag.get("data-name") == "gap_against_models_by_method.png")
    assert "1 models worst first: mean 0.2990, weighted mean 0.3090, LightGBM 0.3190" in alt
    (pipeline / "stacked" / "ensemble_sizes.json").unlink()
    without = _page(pipeline, tmp_path / "without.html")
    assert f"yt8m-stack --sizes --output={pipeline}/stacked" in without.text
    assert without.row("1")[1:] == page.row("1")[1:]  # the plain mean, from the rows
    (pipeline / "stacked" / "ensemble_sizes.json").write_text("{}")
    with pytest.raises(InputError, match=r"ensemble_sizes\.json: cannot be read \('points'\)"):
        write_report(pipeline, tmp_path / "report.html", _QUIET)


def test_numbers(whole: tuple[Path, _Page]) -> None:
    page = whole[1]
    assert "Where each choice was made" in page.text and "validation shards, which judge it" in page.text
    assert "95% interval of GAP@20, over videos" in page.text and "0.4011 to 0.4599" in page.text
    assert page.row("final")[1:] == ["0.4321", "", "", "2.5 MB", "12 s"]
    assert page.row("first")[1:] == ["0.5400", "0.5500", "", "", "2 min"]
    assert page.row("plain mean")[1:3] == ["0.5500", "0.5600"] and page.row("LightGBM")[1] == "0.5700"
    assert page.row("train first") == ["train first", "2", "0.5500", "", "", "120.0"]
    assert page.row("exported/final/1")[1:] == ["2,500,000", "0.43209", "0.43210", "1"]
    assert page.row("first (cluster) 1.00")[1:] == ["single", "1,000,000", "0.4100"]
    assert page.row("Fish & chips") == ["Fish & chips", "2", "1", "1.000"]
    # Video b: label 2, highest score of class 0, which the other two videos have as well.
    confusion = next(row for row in page.rows if row[:2] == ["Fish & chips", NAMES[0]])
    assert confusion[2] == "1" and confusion[3].strip() == "100% of 1" and confusion[4] == "0"
    assert "class 4" in page.text and "Video <b>&a average precision 0.83" in page.text
    # Pooled: 0.9 hit, 0.8 hit, 0.75 hit, 0.7 miss, 0.6 hit, misses of 0.5, 0.4 and 0.3, 0.2 hit.
    gap = (1 + 1 + 1 + 4 / 5 + 5 / 9) / 5
    assert f"area {gap:.4f}" in next(a["alt"] for t, a in page.tags if a.get("data-name") == "precision_recall.png")


def test_one_file_that_loads_nothing(whole: tuple[Path, _Page]) -> None:
    page, files = whole[1], whole[0].parent / "report_files"
    assert page.open == []
    pictures = []
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert "src" not in attributes or tag == "img"
        assert str(attributes.get("href", "#")).startswith("#")
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            kind, _, encoded = str(attributes["src"]).partition(";base64,")
            assert kind == "data:image/svg+xml" and len(str(attributes["alt"])) > 20
            root = xml.etree.ElementTree.fromstring(base64.b64decode(encoded))
            links = [v for node in root.iter() for k, v in node.attrib.items() if k.endswith("href")]
            assert all(link.startswith(("#", "data:")) for link in links)
            pictures.append(str(attributes["data-name"]))
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert [tag for tag, _ in page.tags].count("script") == 1
    written = sorted(path.name for path in files.iterdir())
    assert written == sorted(pictures) and len(pictures) == 11
    assert all((files / name).read_bytes()[:4] == b"\x89PNG" for name in written)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for t, a in page.tags if t == "a"} <= set(ids)


def test_names_and_ids_are_escaped(pipeline: Path, tmp_path: Path) -> None:
    (pipeline / "runs" / "final").rename(pipeline / "runs" / "<i>final")
    (pipeline / "evaluation" / "final").rename(pipeline / "evaluation" / "<i>final")
    shutil.move(pipeline / "scores" / "final", pipeline / "scores" / "<i>final")
    page = _page(pipeline, tmp_path / "report.html", dataclasses.replace(_QUIET, model="<i>final"))
    assert page.open == []
    assert not {"i", "b"} & {tag for tag, a in page.tags if "style" not in a}  # <i style=...> is a bar
    assert not any("onerror" in attributes for _, attributes in page.tags)
    for name in (NAMES[0], NAMES[1], "<i>final", "Video <b>&a"):
        assert name in page.text


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("evaluation", ["No evaluation yet: yt8m-evaluate", "No calibration", "No average precision of classes"]),
        pytest.param("exported", ["Nothing was exported: yt8m-export --workdir="], marks=pytest.mark.slow),
        ("stacked", ["No stacking yet: yt8m-pipeline", "No stacked scores", "No confusions", "No examples"]),
        pytest.param(
            "scores", ["No ensemble was packed", "Confusions of LightGBM", "LightGBM: 3 videos"], marks=pytest.mark.slow
        ),
        pytest.param("results.json", ["No results of stages yet: yt8m-pipeline"], marks=pytest.mark.slow),
    ],
)
def test_what_is_missing_is_named_with_its_command(pipeline: Path, tmp_path: Path, gone: str, words: list[str]) -> None:
    path = pipeline / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    if gone == "scores":  # the stacked models' are left
        shutil.rmtree(pipeline / "exported" / "pack")
    page = _page(pipeline, tmp_path / "report.html")
    assert page.open == []
    for word in words:
        assert word in page.text


@pytest.mark.slow
def test_a_run_alone(learnable_shards: Callable[..., Path], tmp_path: Path) -> None:
    data_dir, workdir = learnable_shards(), tmp_path / "run"
    values = {
        "model": {"name": "logistic"},
        "data": {"features": {"rgb": 8, "audio": 4}, "num_classes": 10},
        "train": {"batch_size": 32, "steps_per_epoch": 8, "epochs": 2},
        "optimizer": {"learning_rate": 0.05},
    }
    options = loop.RunOptions(str(data_dir), workdir, xla=False, progress=False)
    loop.train(parse_experiment(values), options, tf.distribute.get_strategy(), Faults())
    found = read_workdir(workdir)
    assert not found.pipeline and main_model(found) == "run" and found.runs["run"].num_weights == 12 * 10 + 10
    page = _page(workdir, tmp_path / "bare.html")
    assert "No evaluation yet" in page.text and "No precision-recall curve" in page.text and "130" in page.row("run")

    trained = load_trained(workdir)
    metrics = evaluate_trained(
        trained, ["validate*.tfrecord"], str(data_dir), faults=Faults(), xla=False, progress=False
    )
    write_evaluation(metrics, workdir / "evaluation")
    before = sorted(workdir.rglob("*"))
    own = find_predictions(read_workdir(workdir), "run", str(data_dir), 0, progress=False)
    assert own is not None and own.shards == (2, 2) and len(own.ids) == 128
    assert precision_recall(own).gap == pytest.approx(metrics.gap, abs=2e-3)  # float16
    page = _page(workdir, tmp_path / "whole.html", dataclasses.replace(_QUIET, data_dir=str(data_dir), num_shards=1))
    assert "run: 64 videos" in page.text and f"{metrics.gap:.4f}" in page.text
    assert sorted(workdir.rglob("*")) == before  # a report writes nothing there


def test_runs_on_rated_segments_have_a_section(tmp_path: Path) -> None:
    write_segment_run(tmp_path / "x", "one", [0.5, 0.6125], evaluated=True)
    write_segment_run(tmp_path / "x", "two", [0.7], evaluated=False)
    workdir = read_workdir(tmp_path / "x")
    assert main_model(workdir) == "one" and not workdir.evaluations
    page = _page(tmp_path / "x", tmp_path / "report.html")
    assert page.open == []
    for row in (
        ["one logistic", "5 and 2 on each side", "0.6125", "0.2500", "0.6125"],
        ["two logistic", "5 and 2 on each side", "", "", "0.7000"],
    ):
        assert row in [[cell.strip() for cell in found] for found in page.rows]
    command = f"two is not evaluated: yt8m-evaluate --workdir={tmp_path}/x/runs/two --data_dir=DATA"
    assert command in page.text and "one is not evaluated" not in page.text
    for tile in ("MAP over rated pairs0.6125", "ratings34", "of them present50%"):
        assert tile in page.text
    assert page.row("Fish & chips") == ["Fish & chips", "2", "9", "3", "0.125"]
    assert page.row(NAMES[1]) == [NAMES[1], "1", "3", "0", ""]
    assert "1 of 6 classes were rated nowhere, 1 were rated absent alone" in page.text
    assert "No stacking yet" not in page.text  # there are no folds
    assert "No confusions" not in page.text and "No evaluation yet" not in page.text  # there is nothing of whole videos


def test_bad_directories_are_one_line(pipeline: Path, tmp_path: Path) -> None:
    def message(path: Path, **options: str) -> str:
        with pytest.raises(InputError) as caught:
            write_report(path, tmp_path / "report.html", Options(progress=False, **options))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert re.search(r"--workdir=.*neither a pipeline nor a run.*yt8m-pipeline", message(tmp_path / "nothing"))
    assert re.search(r"--model=other: no such run.*final, first, second", message(pipeline, model="other"))
    report = "exported/final/1/assets.extra/export_report.json"
    for name in ("evaluation/final/metrics.json", "stacked/report.json", "runs/final/history.jsonl", report):
        good = (pipeline / name).read_text()
        for bad in (good[: len(good) // 2], "{}") if name.endswith(".json") and "stacked" not in name else (good[:9],):
            (pipeline / name).write_text(bad)
            assert name in message(pipeline) and re.search("cannot be read|is no evaluation", message(pipeline))
        (pipeline / name).write_text(good)
    (tmp_path / "report_files").write_text("a file")
    assert "--output=" in message(pipeline)
    (pipeline / "results.json").write_text(json.dumps({}))
    shutil.rmtree(pipeline / "runs")
    (pipeline / "runs").mkdir()
    assert "no run there yet" in message(pipeline)
