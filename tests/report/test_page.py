"""The report page: its numbers, its hints about missing parts, and its form as one self-contained, safe file."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_world
import tensorflow as tf
from absl import flags
from commands import fresh_flags
from report_world import NAMES, write_export, write_pipeline, write_run, write_segment_run

from yt8m_tf.data.faults import Faults
from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.runs import evaluate_trained, write_evaluation
from yt8m_tf.models.registry import parse_experiment
from yt8m_tf.report.analysis import precision_recall
from yt8m_tf.report.hints import Hints
from yt8m_tf.report.page import Options, write_report
from yt8m_tf.report.predictions import find_predictions
from yt8m_tf.report.sources import read_workdir
from yt8m_tf.report.workdir import main_model
from yt8m_tf.training import loop
from yt8m_tf.training.checkpoints import load_trained

_QUIET = Options(progress=False)
_VOID = {"meta", "img", "input", "br", "hr", "link"}


class _Page(HTMLParser):
    """Parses a page whose tags must close in order; keeps its tags, table rows, text, and the texts shown at points."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.told: list[str] = []  # shown when a pointer rests on a point
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
        if self.open[-1:] == ["title"] and "svg" in self.open:
            self.told.append(data)
        elif not {"style", "script"} & set(self.open):
            self.text += data
        if self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def alt(self, picture: str) -> str:
        return next(str(tag["aria-label"]) for _, tag in self.tags if tag.get("data-name") == f"{picture}.png")

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
    """A pipeline and its page, `report.html` in its parent directory; read-only."""
    root = tmp_path_factory.mktemp("whole")
    directory = write_pipeline(root / "pipeline")
    return directory, _page(directory, root / "report.html")


def test_ensembles(whole: tuple[Path, _Page]) -> None:
    directory, page = whole
    found = [[cell.strip() for cell in row] for row in page.rows]
    assert ["1", "worst first", "0.2690", "0.2990", "0.3090", "0.3190"] in found
    assert ["1 + 1", "best, and all weak ones", "0.5690", "0.5990", "0.6090", "0.6190"] in found
    assert ["1", "1", "0.4990 → 0.5990", "0.5090 → 0.6090", "0.5190 → 0.6190"] in found
    assert "boosters of up to 1,200 trees, learning rate 0.25. Weak models: second." in page.text
    assert (directory.parent / "report_files" / "gap_against_models_by_method.png").is_file()
    alt = page.alt("gap_against_models_by_method")
    assert "1 models worst first: mean 0.2990, weighted mean 0.3090, LightGBM 0.3190" in alt
    assert "LightGBM of 1 + 1 models, best, and all weak ones: 0.6190" in page.told


@pytest.mark.slow
def test_ensembles_that_were_not_measured(whole: tuple[Path, _Page], tmp_path: Path) -> None:
    directory, page = whole
    pipeline = Path(shutil.copytree(directory, tmp_path / "pipeline"))
    (pipeline / "stacked" / "ensemble_sizes.json").unlink()
    without = _page(pipeline, tmp_path / "without.html")
    assert f"yt8m-stack --sizes --output={pipeline}/stacked" in without.text
    assert without.row("1")[1:] == page.row("1")[1:]  # the plain mean, computed from the rows


def test_measured_ensembles_that_cannot_be_read(pipeline: Path, tmp_path: Path) -> None:
    (pipeline / "stacked" / "ensemble_sizes.json").write_text("{}")
    with pytest.raises(InputError, match=r"ensemble_sizes\.json: cannot be read \('points'\)"):
        write_report(pipeline, tmp_path / "report.html", _QUIET)


def test_numbers(whole: tuple[Path, _Page]) -> None:
    page = whole[1]
    assert "95% interval of GAP@20, over videos" in page.text and "0.4011 to 0.4599" in page.text
    assert page.row("final")[1:] == ["0.4321", "", "2.5 MB", "12 s"]  # no run has checkpoints: no column for parameters
    assert page.row("first")[1:] == ["0.5400", "0.5500", "", "2 min"]
    assert page.row("plain mean")[1:3] == ["0.5500", "0.5600"] and page.row("LightGBM")[1] == "0.5700"
    assert page.row("train first") == ["train first", "2", "0.5500", "", "120.0"]
    assert "4 stages in 3 rows, folds of a model in one; 2 min of work in all" in page.text
    assert page.row("exported/final/1")[1:] == ["2,500,000", "0.43209", "0.43210", "1", "2,346"]
    assert page.row("first (cluster) 1.00")[1:] == ["single", "1,000,000", "0.4100"]
    assert page.row("Fish & chips") == ["Fish & chips", "2", "1", "1.000"]
    assert "1 of 6 classes have no label" in page.text
    # Video b: label 2, highest score for class 0, as for the other two videos.
    confusion = next(row for row in page.rows if row[:2] == ["Fish & chips", NAMES[0]])
    assert confusion[2] == "1" and confusion[3].strip() == "100% of 1" and confusion[4] == "0"
    assert "class 4" in page.text and "Video <b>&a average precision 0.83" in page.text
    chips = re.findall(r"#\d+", page.text[page.text.index("Video <b>&a average") :])
    assert chips[:2] == ["#1", "#3"]  # the ranks of labels 0 and 1
    # Pooled: 0.9 hit, 0.8 hit, 0.75 hit, 0.7 miss, 0.6 hit, misses at 0.5, 0.4 and 0.3, 0.2 hit.
    gap = (1 + 1 + 1 + 4 / 5 + 5 / 9) / 5
    assert f"final: area {gap:.4f}" in page.alt("precision_recall")
    # Bins at 0.15 and 0.71; 0.125 and 0.5 of their predictions are labels.
    assert "Calibration of final" in (whole[0].parent / "report.html").read_text(encoding="utf-8")
    assert "The curve is below the diagonal: these scores are too high, above the shares of labels." in page.text
    for title in (
        "final, step 20: 0.4321",
        "scores around 0.710: 0.500 of 6 are labels",
        "Fish & chips: 1 labels, 1.000",
    ):
        assert title in page.told


def test_the_page_has_the_main_facts_and_the_versions(whole: tuple[Path, _Page]) -> None:
    directory, page = whole
    assert f"Pipeline {directory.parent.name}/pipeline: 3 models, 6 classes" in page.text
    best = "The best of 6 on the 20 validation videos is LightGBM (combination), with a GAP@20 of 0.5700: 0.0100 above"
    # Both have equal scores for the same three videos.
    compared = "0.1379 above final (paired 95% interval over 3 videos +0.0000 to +0.0000"
    compared += ", which includes 0: the difference is not significant)."
    served = "The one to serve is exported/final/1, with a GAP@20 of 0.4321, 0.1379 below LightGBM. It costs 2.5 MB and"
    served += " 2,346 videos/s in batches of 1024, on the machine that exported it."
    surprising = "final (0.4321) is below simpler models that it builds on: first (0.5400)."
    rising = "GAP@20 of final was still rising at its last evaluation, by 0.1321"
    for words in (best, compared, served, surprising, rising, "No model can be expected to exceed 0.6600."):
        assert words in page.text
    assert "LightGBM (combination): 0.57000" in page.told and "first (first level): 0.54000" in page.told
    assert page.row("model") and page.row("started, session 2 of 2")[1] == "2026-11-28T21:00:00+00:00"
    assert page.row("versions, session 1 of 2")[1] == "tensorflow 2.21.0; Linux"
    assert page.row("data, session 1 of 2")[1] == "4 shards; validation: 2 shards"
    assert page.row("training time")[1] == "3 min"  # 60 + 90.5 seconds
    assert page.row("training")[1].startswith("loss bce, adam with learning rate 0.001")
    assert ["final", "stopping", "validation shards (also used to evaluate it)"] in page.rows
    assert "num_classes: 6" in page.text  # the whole configuration


def test_one_file_that_loads_nothing(whole: tuple[Path, _Page]) -> None:
    page, files = whole[1], whole[0].parent / "report_files"
    assert page.open == []
    pictures = []
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base", "img")
        assert "src" not in attributes
        links = [str(value) for name, value in attributes.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
        assert not any(name.startswith("on") for name in attributes)
        if tag == "svg":
            assert attributes["role"] == "img" and len(str(attributes["aria-label"])) > 20
            pictures.append(str(attributes["data-name"]))
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert [tag for tag, _ in page.tags].count("script") == 1
    written = sorted(path.name for path in files.iterdir())
    assert written == sorted(pictures) and len(pictures) == 11
    assert all((files / name).read_bytes()[:4] == b"\x89PNG" for name in written)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = {str(value)[1:] for tag, a in page.tags for name, value in a.items() if name.endswith("href")}
    clipped = {str(a["clip-path"])[5:-1] for _, a in page.tags if "clip-path" in a}
    assert referred | clipped <= set(ids)
    text = (whole[0].parent / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text and text.count("<style") == 1  # matplotlib's own styles would apply to the whole page


def test_names_and_ids_are_escaped(whole: tuple[Path, _Page]) -> None:
    page = whole[1]
    _assert_escaped(page)
    for name in (NAMES[0], NAMES[1], "Video <b>&a"):
        assert name in page.text


@pytest.mark.slow
def test_directories_are_escaped(pipeline: Path, tmp_path: Path) -> None:
    (pipeline / "runs" / "final").rename(pipeline / "runs" / "<i>final")
    (pipeline / "evaluation" / "final").rename(pipeline / "evaluation" / "<i>final")
    shutil.move(pipeline / "scores" / "final", pipeline / "scores" / "<i>final")
    page = _page(pipeline, tmp_path / "report.html", dataclasses.replace(_QUIET, model="<i>final"))
    _assert_escaped(page)
    assert "<i>final" in page.text


def _assert_escaped(page: _Page) -> None:
    assert page.open == []
    assert not {"i", "b"} & {tag for tag, a in page.tags if "style" not in a}  # <i style=...> is a bar
    assert not any("onerror" in attributes for _, attributes in page.tags)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (
            ["evaluation", "scores", "exported/pack"],  # the stacked models' scores remain
            [
                "No evaluation of final yet: yt8m-evaluate",
                "No calibration of final: yt8m-evaluate",
                "No average precision of classes: yt8m-evaluate",
                "No ensemble was packed",
                "No precision-recall curve of final: its scores of validation videos are not available",
                "Confusions of LightGBM",
                "No confusions of final: its scores of validation videos are not available; to compute them",
                "LightGBM: 3 videos",
            ],
        ),
        pytest.param(["exported"], ["Nothing was exported: yt8m-export --workdir="], marks=pytest.mark.slow),
        pytest.param(
            ["stacked", "scores"],
            ["No stacking yet: yt8m-pipeline", "No stacked scores", "No confusions of final", "No example videos"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["results.json"], ["No results of stages yet: yt8m-pipeline"], marks=pytest.mark.slow),
    ],
)
def test_missing_inputs_are_named_with_the_command_that_makes_them(
    pipeline: Path, tmp_path: Path, gone: list[str], words: list[str]
) -> None:
    for path in map(pipeline.joinpath, gone):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    page = _page(pipeline, tmp_path / "report.html")
    assert page.open == []
    for word in words:
        assert word in page.text


def test_a_run_alone_has_no_empty_columns_and_finds_its_export(tmp_path: Path) -> None:
    """A stored run in a directory with a space in its name, exported to the place that yt8m-evaluate suggests."""
    run = tmp_path / "my runs" / "plain"
    write_run(run, [0.4321])
    report_world.write_evaluation(run / "evaluation")
    tensorboard = run / "tensorboard"
    tensorboard.mkdir()
    for name in ("100.vm.7.0.start", "400.vm.7.2.end"):
        (tensorboard / f"events.out.tfevents.{name}.session").touch()
    exported = tmp_path / "exported" / "plain" / "1"
    options = dataclasses.replace(_QUIET, data_dir="/my data", vocabulary=None)
    bare = _page(run, tmp_path / "bare.html")
    hint = f"yt8m-export --workdir='{run}' --output=exported/plain/1 --data_dir=DATA"
    assert f"Nothing was exported: {hint}" in bare.text and "out of fold" not in bare.text.split("Words such")[0]
    assert next(row for row in bare.rows if row[0] == "model") == ["model", "GAP@20 validation", "training"]
    assert bare.row("plain")[1:] == ["0.4321", "5 min"]  # 300 seconds, according to the names of the event files
    assert not {"gap.png", "bce_runs.png", "gap_at_20_runs.png"} & {str(a.get("data-name")) for _, a in bare.tags}
    assert "GAP@20 of plain is known at one step only. plain, step 10: 0.4321." in bare.text
    write_export(exported, run)
    write_export(tmp_path / "exported" / "other" / "1", run)
    _check_flags(Hints(read_workdir(run), Path("a.html"), "/my data", "v.csv", "plain"))
    page = _page(run, tmp_path / "page.html", dataclasses.replace(options, data_dir=None))
    assert page.row(str(exported))[1:] == ["2,500,000", "0.43209", "0.43210", "1", "2,346"]
    assert "exported/other" not in page.text and "Nothing was exported" not in page.text
    assert "plain has a GAP@20 of 0.4321 on the 20 validation videos. A model that knows only" in page.text
    assert page.row("plain")[-2:] == ["2.5 MB", "5 min"]
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("rgb: 8", "rgb: 9"))
    workdir = read_workdir(run)
    assert workdir.exports == []  # the export has other inputs
    hints = Hints(workdir, Path("a.html"), "/my data", "v.csv", None)
    assert hints.evaluate("plain") == f"yt8m-evaluate --workdir='{run}' --data_dir='/my data' --vocabulary=v.csv"
    assert hints.report() == f"yt8m-report --workdir='{run}' --output=a.html --data_dir='/my data' --vocabulary=v.csv"


def _check_flags(hints: Hints) -> None:
    """Checks that the commands accept the flags used in the hints."""
    named = (hints.evaluate, hints.export)
    plain = (hints.train, hints.pipeline, hints.report, hints.stack, hints.sizes, hints.pack)
    texts = [own("plain") for own in named] + [own() for own in plain]
    texts += [hints.evaluate("plain", "plain"), hints.infer(hints.workdir.exports[0])]
    for text in texts:
        command = shlex.split(text)
        with fresh_flags():
            importlib.import_module(f"yt8m_tf.bin.{command[0].removeprefix('yt8m-')}")
            assert flags.FLAGS(command) == command[:1], text


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
    assert not found.pipeline and main_model(found) == "run" and found.runs["run"].num_parameters == 12 * 10 + 10
    page = _page(workdir, tmp_path / "bare.html")
    assert "No evaluation of run yet" in page.text and "No precision-recall curve" in page.text
    assert "130" in page.row("run") and page.row("checkpoint")[1].startswith("step 16 of 16, in ")
    assert page.row("parameters")[1].startswith("130,") and page.row("device")[1].startswith("CPU")

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
    assert "1 of 6 classes were never rated, 1 were only rated absent" in page.text
    assert "No stacking yet" not in page.text  # there are no folds
    assert "No confusions" not in page.text and "No evaluation of" not in page.text  # no predictions for whole videos


def test_bad_directories_give_a_one_line_error(pipeline: Path, tmp_path: Path) -> None:
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
            assert name in message(pipeline) and re.search("cannot be read|not a valid evaluation", message(pipeline))
        (pipeline / name).write_text(good)
    (tmp_path / "report_files").write_text("a file")
    assert "--output=" in message(pipeline)
    (pipeline / "results.json").write_text(json.dumps({}))
    shutil.rmtree(pipeline / "runs")
    (pipeline / "runs").mkdir()
    assert "no run there yet" in message(pipeline)
