"""The gain from soft labels: the arithmetic by hand, a pipeline's figures, bad input, and results computed once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import label_noise
import numpy as np
import pytest
import yaml
from label_noise import Options, results
from noise_study import report as study_report
from noise_study import truth as study_truth
from noise_study.report import gains, recovered, tables
from noise_study.truth import by_seed, gap_of, label_quality, multi_hot, read_scores

from yt8m_tf.errors import InputError
from yt8m_tf.evaluation.submissions import read_csv_labels
from yt8m_tf.sample_data.dataset import Layout, write_sample_data
from yt8m_tf.sample_data.frames import FrameCounts
from yt8m_tf.sample_data.generator import SampleConfig
from yt8m_tf.score_shards import manifest, records

ROOT = Path(__file__).resolve().parents[2]
VIDEOS = {"train": 2100, "validate": 1400, "test": 2800}
SIZES = {"rgb": 64, "audio": 8}
MODEL = {"config": "first_level/logistic.yaml"}


def slow_gap(scores, labels):
    """GAP by definition, pair by pair; scores have no ties."""
    pairs = []
    for row, truth in zip(scores.tolist(), labels.tolist(), strict=True):
        pairs += sorted(zip(row, truth, strict=True), reverse=True)[:20]
    total = hits = 0
    for rank, (_, truth) in enumerate(sorted(pairs, reverse=True), start=1):
        hits += truth
        total += hits / rank if truth else 0
    return total / labels.sum()


def write_config(path, baselines=("hard",), students=("half", "soft"), features=SIZES):
    models = {"models": {"one": MODEL}, "num_folds": 2, "video": {"data": {"features": features}}}
    models |= {"baselines": dict.fromkeys(baselines, MODEL), "students": dict.fromkeys(students, MODEL)}
    path.write_text(yaml.safe_dump(models))
    return str(path)


def level(percent, hard=(0.8,), half=(0.85,), soft=(0.9,), videos=VIDEOS):
    gaps = {"one": [0.7], "LightGBM": [0.88], "hard": list(hard), "half": list(half), "soft": list(soft)}
    quality = {"precision": 0.7, "recall": 0.6, "f1": 0.646, "squared_error": 1.5}
    return {
        "percent": percent,
        "videos": dict(videos),
        "truth": gaps,
        "noisy": gaps,
        "reachable": {"truth": 0.99, "truth_from_noisy_labels": 0.98, "noisy": 0.6},
        "labels": {
            **dict.fromkeys(("hard", "half", "soft"), quality),
            "soft_gap_at_20": {"truth": 0.9, "noisy": 0.6},
        },
        "minutes": 1.0,
    }


def test_recovered_by_hand():
    assert recovered(0.85, 0.80, 0.90) == pytest.approx(0.5)
    assert recovered(0.80, 0.80, 0.90) == 0
    assert recovered(0.78, 0.80, 0.90) == pytest.approx(-0.2)
    assert recovered(0.92, 0.80, 0.90) == pytest.approx(1.2)
    assert recovered(0.95, 0.90, 0.90) is None
    assert gains([0.5, 0.7], [0.4, 0.75]) == pytest.approx([0.1, -0.05])


def test_label_quality_by_hand():
    truth = np.array([[True, True, False, False], [False, True, False, False]])
    targets = np.array([[0.9, 0.2, 0.5, 0.0], [0.0, 1.0, 0.1, 0.4]])
    found = label_quality(targets, truth)  # predicted: 0 and 2 for the first video, 1 for the second; 2 of 3 are right
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found["squared_error"] == pytest.approx((0.01 + 0.64 + 0.25 + 0.01 + 0.16) / 2)
    assert label_quality(truth.astype(np.float32), truth) == {
        "precision": 1,
        "recall": 1,
        "f1": 1,
        "squared_error": 0,
    }
    assert label_quality(np.zeros((2, 4)), truth) == {"precision": 0, "recall": 0, "f1": 0, "squared_error": 1.5}


def test_gap_is_the_definition():
    rng = np.random.default_rng()
    scores, labels = rng.random((30, 25), np.float32), rng.random((30, 25)) < 0.2
    assert gap_of(scores, labels) == pytest.approx(slow_gap(scores, labels), abs=1e-12)
    by_hand = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.05]]), np.array([[True, False, True], [False, True, False]])
    assert gap_of(*by_hand) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)


def test_scores_of_all_shards_are_read(tmp_path):
    rng = np.random.default_rng()
    expected, shards = {}, {}
    for name in ("b.tfrecord", "a.tfrecord"):
        rows = []
        for number in range(int(rng.integers(1, 6))):
            video_id = f"{name[0]}{number}"
            classes = rng.permutation(12)[: int(rng.integers(1, 6))]
            values = np.sort(rng.random(len(classes)).astype(np.float16))[::-1]
            rows.append((video_id.encode(), classes, values))
            expected[video_id] = dict(zip(classes.tolist(), values.tolist(), strict=True))
        shards[name] = records.write_shard(tmp_path / name, rows)
    manifest.finish(tmp_path, manifest.Manifest(("model",), "fingerprint", 12, 5, "video", shards=shards))
    ids, scores = read_scores(tmp_path)
    assert sorted(ids) == sorted(expected) and ids[0].startswith("a")
    for video_id, row in zip(ids, scores, strict=True):
        assert {c: v for c, v in enumerate(row.tolist()) if v} == expected[video_id]


def test_multi_hot_and_seeds():
    assert multi_hot(["b", "a"], {"a": {0, 2}, "b": set()}, 3).tolist() == [[False] * 3, [True, False, True]]
    with pytest.raises(InputError, match="lack video 'c'"):
        multi_hot(["a", "c"], {"a": {0}}, 3)
    values = {"hard": 1.0, "hard_seed_1": 2.0, "hard_seed_12": 3.0, "LightGBM": 4.0}
    assert by_seed(values) == {"hard": [1.0, 2.0, 3.0], "LightGBM": [4.0]}


def test_a_perfect_fit_to_right_labels_is_the_best_reachable(tmp_path):
    seed = int(np.random.default_rng().integers(1000))
    layout = Layout({"train": 0, "validate": 0, "test": 60}, 25, ("video",))
    limits = {}
    for noise in (0.0, 0.3):
        config = SampleConfig(24, 4, 3.0, noise, 32, 8, seed)
        facts = write_sample_data(str(tmp_path / str(noise)), config, layout, FrameCounts(2, 9))
        shards = sorted(map(str, (tmp_path / "0.0" / "video").glob("test*")))
        truth = read_csv_labels(tmp_path / "0.0" / "true_labels.csv")
        limits[noise] = study_truth._posterior_gap(facts["parameters"], shards, truth)
        if not noise:
            assert limits[noise] == pytest.approx(facts["best_reachable_gap"]["test"]["video"], abs=2e-3)
    assert 0.5 < limits[0.3] < limits[0.0] + 1e-3


def test_tables_have_the_means_the_spread_and_the_gains():
    clean = level(0, hard=(0.90, 0.92), half=(0.90, 0.93), soft=(0.91, 0.92))
    noisy = level(30, hard=(0.80, 0.82), half=(0.83, 0.87), soft=(0.90, 0.92))
    scores, gained, labels = (part.splitlines() for part in tables([clean, noisy]).split("\n\n"))
    assert scores[0] == "| GAP@20 | 0 % wrong | 30 % wrong |"
    assert "| hard labels | 0.9100 (0.9000 to 0.9200) | 0.8100 (0.8000 to 0.8200) |" in scores
    assert "| reachable | 0.9900 | 0.9900 |" in scores and "| reachable | 0.6000 | 0.6000 |" in scores
    assert "| reachable by a perfect fit to the training labels | 0.9800 | 0.9800 |" in scores
    # 0.91 - 0.81 is lost; the half soft labels recover 0.04 of it, the soft ones all of it.
    assert "| 30 % wrong | 10.00 | student, half soft | +4.00 (+3.00 to +5.00) | 40 % |" in gained
    assert "| 30 % wrong | 10.00 | student, soft alone | +10.00 (+10.00 to +10.00) | 100 % |" in gained
    assert "| 30 % wrong | 10.00 | LightGBM | +7.00 | 70 % |" in gained
    assert "| 0 % wrong | 0.00 | student, half soft | +0.50 (+0.00 to +1.00) |  |" in gained
    assert len(labels) == 2 + 6 and labels[-1].endswith("| 0.700 | 0.600 | 0.646 | 1.500 | 0.9000 |")


def test_the_figure_is_written(tmp_path):
    study_report.draw([level(0), level(30, hard=(0.7, 0.72, 0.73))], tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_existing_results_are_not_computed_again(tmp_path, monkeypatch):
    made = []

    def measure(options, settings, percent):
        made.append(percent)
        if percent == 20 and made.count(20) == 1:
            raise InputError("interrupted")
        return level(percent, hard=(0.9 - percent / 100,))

    monkeypatch.setattr(label_noise, "_measure", measure)
    config = write_config(tmp_path / "config.yaml")
    options = Options(config, [20, 0, 10], tmp_path / "work", tmp_path / "results", VIDEOS)
    with pytest.raises(InputError, match="interrupted"):
        results(options)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["noise_00.json", "noise_10.json"]
    assert [found["percent"] for found in results(options)] == [0, 10, 20]
    assert made == [0, 10, 20, 20]
    assert [found["truth"]["hard"] for found in results(options)] == [[0.9], [0.8], [pytest.approx(0.7)]]
    assert len(made) == 4
    others = Options(config, [0], tmp_path / "work", tmp_path / "results", VIDEOS | {"test": 7})
    with pytest.raises(InputError, match=r"noise_00\.json: has different numbers of videos"):
        results(others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"percents": [10, 30]}, "--noise=10,30: add 0"),
        ({"percents": [0, 50]}, "--noise=50: give shares from 0 to below 50"),
        ({"config": "nowhere.yaml"}, "nowhere.yaml"),
        ({"students": ("half",)}, "has no model 'soft'"),
        ({"features": {"rgb": 64}}, "give video.data.features"),
        ({"baselines": ("other",)}, "has no model 'hard'"),
        ({"baselines": ("hard", "hard_seed_1")}, "give 'half' the same seeds as 'hard'"),
    ],
)
def test_bad_input_gives_a_one_line_error(tmp_path, changes, message):
    models = {name: changes[name] for name in ("baselines", "students", "features") if name in changes}
    config = changes.get("config") or write_config(tmp_path / "config.yaml", **models)
    with pytest.raises(InputError, match=message) as caught:
        results(Options(config, changes.get("percents", [0]), tmp_path, tmp_path / "results", VIDEOS))
    assert "\n" not in str(caught.value)


def test_shares_are_numbers():
    assert label_noise.shares(["0", "10"]) == [0, 10]
    with pytest.raises(InputError, match="--noise=0,many: give whole percentages"):
        label_noise.shares(["0", "many"])


def run(*flags):
    command = [sys.executable, str(ROOT / "tools" / "label_noise.py"), *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_the_command_shows_existing_results(tmp_path):
    """All results exist, so nothing is computed."""
    for percent in (0, 10):
        (tmp_path / f"noise_{percent:02d}.json").write_text(json.dumps(level(percent)))
    flags = (f"--workdir={tmp_path / 'work'}", f"--output={tmp_path}", f"--figure={tmp_path / 'figure.png'}")
    done = run(*flags, "--noise=0,10")
    assert done.returncode == 0, done.stderr
    assert "== 10 % wrong labels: done" in done.stdout and done.stdout.count("\n| 10 % wrong |") == 6
    assert (tmp_path / "figure.png").exists() and not (tmp_path / "work").exists()


@pytest.mark.slow
def test_a_tiny_run(tmp_path):
    own = {
        "num_folds": 2,
        "video": {
            "data": {
                "num_classes": 60,
                "features": SIZES,
                "train": "video/train*.tfrecord",
                "validation": "video/validate*.tfrecord",
                "test": "../noise_00/video/test*.tfrecord",
            }
        },
        "train": {"batch_size": 32, "steps_per_epoch": 20, "epochs": 1, "validation_examples": None},
        "models": {"one": MODEL, "two": MODEL},
        "stack": {"num_trees": 5},
        "baselines": {"hard": MODEL},
        "students": {"half": MODEL | {"changes": {"labels": {"weight": 0.5}}}, "soft": MODEL},
    }
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(own))
    videos = ("--num_train=1000", "--num_validate=80", "--num_test=90")
    done = run(
        *(f"--config={config}", f"--workdir={tmp_path / 'work'}", f"--output={tmp_path / 'results'}"),
        *("--figure=", "--noise=0,40", *videos),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "noise_40.json").read_text())
    assert found["videos"] == {"train": 1000, "validate": 80, "test": 90}
    assert found["labels"]["hard"]["precision"] == pytest.approx(0.6, abs=0.06)
    ids, scores = read_scores(tmp_path / "work" / "runs" / "noise_40" / "truth" / "half")
    hidden = read_csv_labels(tmp_path / "work" / "data" / "noise_00" / "test_labels.csv")  # all labels there are right
    assert found["truth"]["half"] == [pytest.approx(slow_gap(scores, multi_hot(ids, hidden, 60)), abs=1e-3)]
    assert set(found["noisy"]) == set(found["truth"]) == {"one", "two", "LightGBM", "hard", "half", "soft"}
