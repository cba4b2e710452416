"""Damaged files of a stacking give a one-line error that names them."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from yt8m_tf import files
from yt8m_tf.config import strict_yaml
from yt8m_tf.ensembling.packing import measure
from yt8m_tf.errors import InputError
from yt8m_tf.score_shards.manifest import read_manifest
from yt8m_tf.stacking import boosting, finished, stack
from yt8m_tf.stacking.rows import Rows, load_rows, save_rows
from yt8m_tf.stacking.settings import StackConfig

_DEEP = "[" * 100_000


def _booster() -> boosting.Trained:
    values = np.random.default_rng(1).random((60, 3))
    data = lightgbm.Dataset(values, (values[:, 0] > 0.5).astype(int), params={"verbosity": -1})
    options = {"objective": "binary", "num_leaves": 4, "min_data_in_leaf": 2, "verbosity": -1, "num_threads": 1}
    return boosting.Trained(lightgbm.train(options, data, 3), {"training": [0.5, 0.4], "held out": [0.6, 0.5]})


def test_boosters_are_read_by_their_checksum(tmp_path: Path) -> None:
    trained, path = _booster(), tmp_path / "fold_0.txt"
    boosting.save(path, trained)
    found = boosting.load(path)
    assert found.curves == trained.curves
    assert found.booster.model_to_string() == trained.booster.model_to_string()

    text = path.read_bytes()
    path.write_bytes(text.replace(b"left_child=", b"left_child=9 ", 1))  # LightGBM would read beyond its arrays
    with pytest.raises(InputError, match=r"fold_0\.txt: cannot be read .*checksum.*remove it and repeat"):
        boosting.load(path)
    path.write_bytes(text)
    path.with_suffix(".json").write_text(json.dumps(trained.curves))  # as written by releases before the checksum
    assert boosting.load(path).curves == trained.curves


@pytest.mark.parametrize("content", ["", "7", "[]", '{"training": 7}', '{"training": ["x"]}', _DEEP])
def test_damaged_curves_are_named(content: str, tmp_path: Path) -> None:
    boosting.save(tmp_path / "fold_0.txt", _booster())
    (tmp_path / "fold_0.json").write_text(content)
    with pytest.raises(InputError, match=r"fold_0\.(txt|json): cannot be read"):
        boosting.load(tmp_path / "fold_0.txt")


@pytest.mark.parametrize("fault", ["missing", "shape", "type", "length", "object", "bytes"])
def test_rows_with_other_arrays_are_named(fault: str, tmp_path: Path) -> None:
    videos = np.zeros(3, np.int32)
    values, labels = np.zeros((3, 4), np.float16), np.zeros(3, bool)
    save_rows(tmp_path / "a.npz", Rows(np.array([b"v"]), 1, videos, videos, values, labels))
    load_rows(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        arrays = dict(archive)
    if fault == "missing":
        del arrays["classes"]
    else:
        other = {"shape": values[..., 0], "type": values.astype("c8"), "length": values[1:], "object": None}
        arrays["features"] = np.asarray(other.get(fault))
    np.savez(tmp_path / "a.npz", **arrays)
    if fault == "bytes":
        (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes().replace(b"\x93NUMPY", b"\x92NUMPY"))
    with pytest.raises(InputError, match=r"a\.npz: .*remove the file and repeat the command"):
        load_rows(tmp_path / "a.npz")


@pytest.mark.parametrize("content", ["[]", '{"gaps": {"validate": {}}}', '{"gaps": [1]}', _DEEP])
def test_a_damaged_report_is_named(content: str, tmp_path: Path) -> None:
    started = {"fingerprint": "f", "config": strict_yaml.to_dict(StackConfig()), "models": ["a"]}
    files.write_json(tmp_path / finished.CONFIG, started)
    (tmp_path / finished.REPORT).write_text(content)
    with pytest.raises(InputError, match=rf"{finished.REPORT}: cannot be read .*; repeat yt8m-stack"):
        finished.read_stacking(tmp_path, "--output")


def test_a_manifest_too_deep_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(_DEEP)
    with pytest.raises(InputError, match=r"scores\.json: cannot be read .*make the scores again"):
        read_manifest(tmp_path, "--scores")


@pytest.mark.parametrize("content", ["", "7", '["x"]', _DEEP])
def test_damaged_figures_of_models_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.json").write_text(content)
    with pytest.raises(InputError, match=r"rows/train\.json: cannot be read .*remove the file and repeat"):
        stack._gaps(tmp_path, "train", None, progress=False)  # type: ignore[arg-type]  # nothing is recomputed


@pytest.mark.parametrize("content", ["", "7", "{}", '{"own_scores": true}', _DEEP])
def test_a_damaged_measurement_of_a_packing_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / measure._RECORD).write_text(content)
    with pytest.raises(InputError, match=rf"{measure._RECORD}: .*run the same command again to measure the candidate"):
        measure._read_record(tmp_path, ["a.tfrecord"])
