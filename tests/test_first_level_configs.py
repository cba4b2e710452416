"""The configurations that ship with the project."""

import csv
from pathlib import Path

import pytest
import yaml

from yt8m_tf import catalogue
from yt8m_tf.config import configurations, strict_yaml
from yt8m_tf.errors import InputError
from yt8m_tf.models import registry

CONFIG_DIR = Path(strict_yaml.__file__).resolve().parents[2] / "configs"
ZOO = yaml.safe_load((CONFIG_DIR / "zoo.yaml").read_text())
PATHS = [
    *(path for group in ("first_level", "segments") for path in sorted((CONFIG_DIR / group).glob("*.yaml"))),
    CONFIG_DIR / "second_level" / "final_network.yaml",
]
every_config = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def without_each_key(values, where=""):
    """(dotted key, `values` without it) for every number, text or list in nested mappings."""
    for key, value in values.items():
        if isinstance(value, dict):
            for name, rest in without_each_key(value, f"{where}{key}."):
                yield name, values | {key: rest}
        else:
            yield f"{where}{key}", {other: kept for other, kept in values.items() if other != key}


def same_without(values, complete, base=None):
    """The keys that could be omitted without changing the configuration."""
    found = []
    for key, rest in without_each_key(values):
        try:
            if key != "model.name" and registry.parse_experiment(strict_yaml.merge(base or {}, rest)) == complete:
                found.append(key)
        except InputError:
            pass  # the key is required
    return found


@every_config
def test_a_file_states_only_differences_from_the_defaults(path):
    values = configurations.load_yaml(str(path))
    assert same_without(values, registry.parse_experiment(values)) == []


@pytest.mark.parametrize("file", ["zoo.yaml", "variants.yaml", "second_level/small_nets.yaml"])
def test_a_configuration_states_only_differences_from_its_family(file):
    content = yaml.safe_load((CONFIG_DIR / file).read_text())
    for name, changes in content["configurations"].items():
        base, own = content["bases"][changes["base"]], {key: value for key, value in changes.items() if key != "base"}
        complete = registry.parse_experiment(strict_yaml.merge(base, own))
        assert same_without(own, complete, base) == [], name


def of_the_zoo(name):
    """The values of one of the zoo's configurations, without rereading the file."""
    changes = ZOO["configurations"][name]
    own = {key: value for key, value in changes.items() if key != "base"}
    return strict_yaml.merge(ZOO["bases"][changes["base"]], own)


def test_the_zoo_is_complete_and_named_after_its_families():
    names = list(ZOO["configurations"])
    assert [name[:4] for name in names] == [f"z{number:03d}" for number in range(113)]
    for name in names:
        assert of_the_zoo(name)["model"]["name"] == name[5:]


def specification(name):
    """A table of the specification, which is next to the repository on development machines."""
    path = CONFIG_DIR.parents[1] / "shared" / "spec" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_zoo_trains_as_published():
    for row in specification("first_level_zoo.csv"):
        family = row["family"].partition(":")[0]
        run = registry.parse_experiment(of_the_zoo(f"z{int(row['id']):03d}_{family}"))
        assert run.data.level == row["level"]
        assert run.train.batch_size == int(row["batch_size"])
        assert run.train.epochs == int(row["epochs"])
        assert run.train.steps_per_epoch == int(row["steps_per_epoch"] or 1000)
        # Two models omit alpha and take the default of the published class.
        assert run.train.mixup_alpha == (0.2 if row["id"] in ("70", "71") else float(row["mixup_alpha"] or 0))
        assert run.optimizer.name == row["optimizer"].lower()
        assert run.optimizer.learning_rate == float(row["learning_rate"])
        assert (run.schedule.factor, run.schedule.patience) == (0.5, int(row["plateau_patience"]))
        loss = {"bce_labels1_tags2": "bce_labels_tags"}.get(row["loss"], row["loss"])
        assert run.loss.name == loss
        if row["id"] == "100":  # omits the rate and takes the default of the published class
            assert run.model["dropout"] == 0.3
        assert (run.data.spec.num_tags == 25) == ("verticals" in row["features"])
        weight = float(row["soft_label_weight"] or 0)
        assert (run.labels.weight if run.labels.soft else 0) == weight


def test_the_zoo_stops_as_published():
    """Models that state no patience take the default of the published loop, 5 evaluations."""
    default = {9, *range(12, 19), 20, 24, 38, 39, 41, 77, 78, 79, 89, 90, 92, 104, 105, 106, 108, 109, 112}
    own = {11: 5, 54: 6, 55: 6, 88: 15, 110: 15, 111: 15} | dict.fromkeys((85, 86, 87), 20)
    for number, name in enumerate(ZOO["configurations"]):
        expected = 5 if number in default else own.get(number, 100)
        assert registry.parse_experiment(of_the_zoo(name)).train.early_stopping_patience == expected, name


def test_files_that_claim_to_be_models_of_the_zoo_are_trained_like_them():
    """Files whose comments name differences are left out; differences in labels and data patterns are ignored."""
    for path, name in {
        "resnet_like_mixup": "z000_resnet_like",
        "resnet_like_soft_ranking": "z004_resnet_like",
        "linear_combinations": "z039_linear_combinations",
        "time_distributed_conv": "z077_time_distributed_conv",
        "time_distributed_dense_sort": "z024_time_distributed_dense_sort",
        "transformer": "z088_transformer",
    }.items():
        assert registry.load_experiment(f"first_level/{path}.yaml") == registry.parse_experiment(of_the_zoo(name)), path


def test_published_scores():
    """The scores of the solution's results table are in published.csv, and each in the head comment of a file."""
    published = catalogue.read_published()
    rows = [row for row in specification("results.csv") if row["row"] not in ("", "0")]
    assert len(rows) == 16
    for row in rows:
        (selector,) = [
            name for name, entry in published.items() if entry["source"].startswith(f"row {row['row']} of the solution")
        ]
        assert published[selector]["gap_at_20"] == row["gap_at_20"] and published[selector]["bce"] == row["bce"]
        comment = " ".join((CONFIG_DIR / selector).read_text().partition("\n#\n")[0].replace("\n#", "").split())
        assert f"# {row['name']}, {row['level']} level: published GAP@20 {row['gap_at_20']}" in comment
        assert not row["bce"] or f"BCE {row['bce']}".rstrip("0") in comment
    assert set(published) <= set(catalogue.selectors())


@pytest.mark.parametrize(
    ("segments", "videos"),
    [("frame_logistic", "frame_logistic"), ("nextvlad", "nextvlad"), ("nextvlad_context", "nextvlad")],
)
def test_models_of_segments_start_from_those_of_whole_videos(segments, videos):
    own, whole = (
        registry.load_experiment(f"{path}.yaml") for path in (f"segments/{segments}", f"first_level/{videos}")
    )
    assert own.model == whole.model and own.data.spec == whole.data.spec
    assert own.data.segments is not None and whole.data.segments is None
