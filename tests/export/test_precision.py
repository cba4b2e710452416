import re

import keras
import numpy as np
import pytest

from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import growing_rules, is_compressible, parse_precision, unused_rules
from yt8m_tf.export.stored import Stored, to_half


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "half"),
    [
        ("kernel", (32, 32), "float32", True),
        ("kernel", (1023,), "float32", False),
        ("centroids", (1024,), "float32", True),
        ("bias", (4096,), "float32", False),
        ("hidden_bias", (2, 2048), "float32", False),
        ("gamma", (4096,), "float32", False),
        ("beta", (4096,), "float32", False),
        ("moving_mean", (4096,), "float32", False),
        ("duals", (64, 32), "float32", False),
        ("moving_variance", (4096,), "float32", False),
        ("table", (64, 64), "int32", False),
        ("kernel", (64, 64), "bfloat16", True),
    ],
)
def test_which_variables_rules_apply_to(name, shape, dtype, half):
    variable = keras.Variable(np.zeros(shape, "int32" if dtype == "int32" else "float32"), dtype=dtype, name=name)
    assert is_compressible(variable) is half


def test_halves_are_the_nearest_float16(rng):
    values = rng.normal(size=(40, 50)).astype(np.float32)
    halves = to_half("w", values)
    assert halves.dtype == np.float16
    # Half a unit in the last of 11 binary digits.
    assert (np.abs(halves.astype(np.float64) - values) <= np.abs(values) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize("value", [65520.0, -1e9, np.inf, np.nan])
def test_values_beyond_float16_are_named(value):
    values = np.zeros((3, 4), np.float32)
    values[1, 2] = value
    with pytest.raises(InputError, match=rf"'block/kernel': 1 of 12 .*first is {re.escape(f'{value:g}')}"):
        to_half("block/kernel", values)


def test_largest_float16_fits():
    assert to_half("w", np.array([65504.0, -65519.0], np.float32)).tolist() == [65504.0, -65504.0]


def _variable(path, shape=(64, 64)):
    variable = keras.Variable(np.zeros(shape, np.float32), name=path.split("/")[-1])
    variable._path = path
    return variable


def test_the_first_rule_that_fits_decides():
    precision = parse_precision("dense*:cluster@16,logits/*:float32, *:float16")
    kinds = {
        path: str(precision.rule_of(_variable(path))) for path in ("dense_1/kernel", "logits/kernel", "a/b/kernel")
    }
    expected = {"dense_1/kernel": "dense*:cluster@16", "logits/kernel": "logits/*:float32", "a/b/kernel": "*:float16"}
    assert kinds == expected
    assert precision.rule_of(_variable("dense_1/bias")).kind == "float32"
    assert parse_precision("dense*:cluster").rule_of(_variable("other/kernel")).kind == "float32"
    assert precision.coarsest == "cluster" and parse_precision("float16").coarsest == "float16"
    assert (
        str(precision) == "dense*:cluster@16,logits/*:float32,*:float16"
        and str(parse_precision("cluster")) == "cluster"
    )
    assert [rule.pattern for rule in unused_rules(precision, [_variable("dense_1/kernel")])] == ["logits/*"]


def test_rules_from_yaml(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("- dense*:cluster\n- '*:float16'\n")
    assert parse_precision(str(path)) == parse_precision("dense*:cluster,*:float16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", "'half' is not a rule; write float16, float32 or cluster"),
        ("dense*:half,float16", r"'dense\*:half' is not a rule"),
        ("a:float16@3", "write cluster@N"),
        ("cluster@0", "write cluster@N"),
        (":float16", "is not a rule"),
        ("none.yaml", "cannot be read"),
        ("bad.yaml", "not a list"),
        ("wrong.yaml", "not valid YAML; quote patterns that begin with"),
        ("random.yaml", "not valid YAML"),
        ("*:float16,logits*:cluster", r"'logits\*:cluster' comes after '\*:float16'"),
    ],
)
def test_invalid_precisions(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("dense: float16")
    (tmp_path / "random.yaml").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "wrong.yaml").write_text("- *:float16")
    with pytest.raises(InputError, match=message):
        parse_precision(text)


@pytest.mark.parametrize("kind", ["float32", "float16", "cluster"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(kind, value):
    values = np.zeros((64, 64), np.float32)
    values[3, 5] = value
    variable = keras.Variable(values, name="kernel")
    with pytest.raises(
        InputError, match=rf"variable '.*kernel': 1 of 4096 weights are not finite, the first is {value}"
    ):
        Stored(variable, values, parse_precision(kind))


def test_codebooks_that_enlarge_a_model_are_found():
    wide, narrow = (keras.Variable(np.zeros((rows, 64), np.float32), name=f"kernel{rows}") for rows in (2048, 64))
    assert not growing_rules(parse_precision("cluster"), [wide, narrow])
    assert not growing_rules(parse_precision("cluster@1"), [wide])  # saves 3 bytes per weight, spends 1,024 of 2,048
    ((rule, variable),) = growing_rules(parse_precision("cluster@1"), [wide, narrow])
    assert (str(rule), variable.name) == ("*:cluster@1", "kernel64")
