"""Configurations are read strictly: every mistake is a one-line error with the dotted key and the remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from yt8m_tf.config.configurations import load_yaml
from yt8m_tf.config.strict_yaml import apply_overrides, differences, merge, parse
from yt8m_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class _Inner:
    rate: float = 0.5
    units: int = 3

    def __post_init__(self) -> None:
        if self.units > 100:
            raise ValueError(f"units must be at most 100, got {self.units}")


@dataclasses.dataclass(frozen=True)
class _Outer:
    required: int
    flag: bool = False
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    limit: int | None = None
    bound: float | None = 1.0
    sizes: tuple[int, ...] = ()
    table: Mapping[str, int] = dataclasses.field(default_factory=dict)
    inner: _Inner = dataclasses.field(default_factory=_Inner)
    anything: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("inner", {"rate": "1e-4"}, _Inner(rate=1e-4)),  # a string to PyYAML
        ("inner", {"rate": 2}, _Inner(rate=2.0)),
        ("inner", None, _Inner()),  # a key without a value
        ("required", 3.0, 3),
        ("bound", None, None),
        ("bound", "3E5", 3e5),
        ("limit", 7, 7),
        ("limit", None, None),
        ("sizes", 5, (5,)),  # a single value is read as a tuple of one
        ("sizes", [5, 6], (5, 6)),
        ("sizes", [], ()),
        ("table", {"u": 1}, {"u": 1}),
        ("kind", "b", "b"),
        ("flag", True, True),
        ("anything", {"deep": [1, {"x": None}]}, {"deep": [1, {"x": None}]}),
    ],
)
def test_values_are_converted(key: str, value: Any, expected: Any) -> None:
    parsed = getattr(parse(_Outer, {"required": 1} | {key: value}, ""), key)
    assert parsed == expected and type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flagg": True}, "unknown key 'flagg'; did you mean 'flag'?"),
        ({"inner": {"unit": 3}}, "unknown key 'inner.unit'; did you mean 'inner.units'?"),
        ({"zzzzzz": 1}, "unknown key 'zzzzzz'"),
        ({1: 2}, "unknown key '1'"),
        ({"flag": 1}, "configuration key 'flag': 1 is not true or false"),
        ({"flag": "yes"}, "configuration key 'flag': 'yes' is not true or false"),
        ({"limit": True}, "configuration key 'limit': True is not a whole number"),
        ({"limit": 2**63}, f"configuration key 'limit': {2**63} is not a whole number of at most 64 bits"),
        ({"limit": 1.5}, "configuration key 'limit': 1.5 is not a whole number"),
        ({"limit": "3"}, "configuration key 'limit': '3' is not a whole number"),
        ({"bound": True}, "configuration key 'bound': True is not a number"),
        ({"bound": "fast"}, "configuration key 'bound': 'fast' is not a number"),
        ({"bound": float("nan")}, "configuration key 'bound': nan is not a number"),
        ({"bound": [1.0]}, "configuration key 'bound': [1.0] is not a number"),
        ({"name": 3}, "configuration key 'name': 3 is not text"),
        ({"name": None}, "configuration key 'name': None is not text"),
        ({"kind": "c"}, "configuration key 'kind': 'c' is not one of a, b"),
        ({"kind": ["a"]}, "configuration key 'kind': ['a'] is not one of a, b"),
        ({"sizes": [1, "two"]}, "configuration key 'sizes[1]': 'two' is not a whole number"),
        ({"table": [1]}, "configuration key 'table': [1] is not a mapping of keys to values"),
        ({"table": {"u": "v"}}, "configuration key 'table.u': 'v' is not a whole number"),
        ({"inner": 3}, "configuration key 'inner': 3 is not a mapping of keys to values"),
        ({"inner": {"rate": "x"}}, "configuration key 'inner.rate': 'x' is not a number"),
        ({"inner": {"units": 101}}, "configuration key 'inner': units must be at most 100, got 101"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(_Outer, {"required": 1} | values, "")
    assert str(caught.value) == message


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InputError, match=r"key 'here\.required' is missing"):
        parse(_Outer, {}, "here")


def _write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return str(path)


_SEVERAL = {
    "bases": {"common": {"a": {"x": 1, "y": 2}, "b": [1]}, 7: {"a": 3}, "nothing": None},
    "configurations": {
        "one": {"base": "common", "a": {"y": 5}, "b": [2]},
        "two": {"c": 1},
        58: {"base": 7, "d": 4},  # a number is a name like any other
        "empty": None,
        "bare": {"base": "nothing"},
        "lost": {"base": "comon"},
    },
}


def test_one_configuration_of_a_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.yaml", {"model": {"name": "logistic"}})
    assert load_yaml(path) == {"model": {"name": "logistic"}}
    with pytest.raises(
        InputError,
        match=r"contains one configuration; leave out ':x', or write several .* 'configurations: {x: \.\.\.}'",
    ):
        load_yaml(f"{path}:x")
    assert load_yaml(_write(tmp_path / "empty.yaml", "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one", {"a": {"x": 1, "y": 5}, "b": [2]}),
        ("two", {"c": 1}),
        ("58", {"a": 3, "d": 4}),
        ("empty", {}),
        ("bare", {}),
    ],
)
def test_one_of_several_configurations(name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    assert load_yaml(_write(tmp_path / "several.yaml", _SEVERAL) + f":{name}") == expected


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (":tow", _SEVERAL, "unknown configuration 'tow'; did you mean 'two'?; name one of .*58"),
        ("", _SEVERAL, "the file contains several configurations; name one of .*one"),
        (":lost", _SEVERAL, "several.yaml: unknown base 'comon'; did you mean 'common'?"),
        (":one", _SEVERAL | {"mine": 1}, "unknown key 'mine' beside"),
        (":one", {"configurations": ["one"]}, r"configurations': \['one'\] is not a mapping"),
        (":one", {"configurations": {"one": 3}}, r"configurations\.one': 3 is not a mapping"),
        (":one", {"configurations": {"one": {"base": "b"}}, "bases": None}, "unknown base 'b'"),
        ("", "a: [1,\n b: }", "not a YAML file"),
        ("", "\tx", "not a YAML file"),
        ("", "just text", "'just text' is not a mapping"),
    ],
)
def test_files_that_cannot_be_used(suffix: str, content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as caught:
        load_yaml(_write(tmp_path / "several.yaml", content) + suffix)
    assert "\n" not in str(caught.value) and "several.yaml" in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not a YAML file"):
        load_yaml(str(tmp_path / "binary.yaml"))


@dataclasses.dataclass
class _Free:
    a: Mapping[str, Any]
    b: str
    c: Mapping[str, Any]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"a": {"x": 1}, "b": "t"}),
        (["a.x=3e-5"], {"a": {"x": "3e-5"}, "b": "t"}),  # a string to PyYAML, which `parse` reads as a float
        (["a.y=null", "a.y=true"], {"a": {"x": 1, "y": True}, "b": "t"}),
        (["c.d.e=[1, 2]"], {"a": {"x": 1}, "b": "t", "c": {"d": {"e": [1, 2]}}}),
        (["b=x=y"], {"a": {"x": 1}, "b": "x=y"}),
        (["a={z: 2}"], {"a": {"x": 1, "z": 2}, "b": "t"}),
    ],
)
def test_overrides(overrides: list[str], expected: dict[str, Any]) -> None:
    values = {"a": {"x": 1}, "b": "t"}
    assert apply_overrides(_Free, values, overrides) == expected
    assert values == {"a": {"x": 1}, "b": "t"}


def test_merge_goes_key_by_key_and_changes_nothing_in_place() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "b": [1, 2], "c": 3}
    changes = {"a": {"y": {"w": 4}}, "b": [5], "c": {"d": 6}, "e": 7}
    assert merge(base, changes) == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": [5], "c": {"d": 6}, "e": 7}
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": [1, 2], "c": 3}


def test_differences_are_listed_by_dotted_key() -> None:
    old = {"a": {"x": 1, "y": 2}, "b": [1], "same": 0, "gone": 1}
    new = {"a": {"x": 1, "y": 3}, "b": [2], "same": 0, "new": {"k": 1}}
    assert differences(old, new) == ["a.y: 2 -> 3", "b: [1] -> [2]", "gone: 1 -> None", "new: None -> {'k': 1}"]
    assert differences(old, old) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {name: moe}\ntrain: {epochs: 1}\nmodel: {name: logistic}\n",
            "key 'model' is repeated in lines 1 and 3",
        ),
        ("train:\n  epochs: 1\n  seed: 2\n  epochs: 3\n", "key 'epochs' is repeated in lines 2 and 4"),
    ],
)
def test_a_key_that_occurs_twice(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=f"x.yaml: not a YAML file .*{message}"):
        load_yaml(str(tmp_path / "x.yaml"))
    with pytest.raises(InputError, match=r"--set=train=.*key 'seed' is repeated in lines 1 and 1"):
        apply_overrides(_Inner, {}, ["train={seed: 1, seed: 2}"])


def test_names_at_the_top_level_are_explained(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("small: {model: {name: moe}}\nlarge: {model: {name: moe}}\n")
    with pytest.raises(InputError, match=r"x\.yaml has 'small' at its top level; write names under 'configurations:'"):
        load_yaml(f"{tmp_path / 'x.yaml'}:small")
    with pytest.raises(InputError, match="contains one configuration; leave out ':other'"):
        load_yaml(f"{tmp_path / 'x.yaml'}:other")


@pytest.mark.parametrize(
    "value",
    [
        "2001-13-45",
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!timestamp x",
        "&a [*a]",
        "&a {b: [*a]}",
        "[" * 3000,
        "9" * 5000,
    ],
)
def test_values_of_the_wrong_type(value: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(f"model: {{name: logistic}}\ntrain: {value}\n")
    with pytest.raises(InputError, match=r"experiment\.yaml: not a YAML file"):
        load_yaml(str(path))
    with pytest.raises(InputError, match=r"--set=train=.*the value is not YAML"):
        apply_overrides(_Outer, {}, [f"train={value}"])


def test_an_alias_may_be_used_many_times(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text("a: &a {x: [1, 2]}\nb: [*a, *a]\nc: *a\n")
    same = {"x": [1, 2]}
    assert load_yaml(str(path)) == {"a": same, "b": [same, same], "c": same}


@pytest.mark.parametrize(
    ("text", "shown"),
    [("[" * 990 + "]" * 990, "a list of hundreds of levels"), ("x" * 10_000, r"'xxx.*xxx \.\.\.")],
)
def test_a_value_of_any_depth_and_length_is_one_short_line(text: str, shown: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"configuration key '.*deep.yaml': {shown} is not a mapping") as raised:
        load_yaml(str(path))
    assert len(str(raised.value)) < 500
