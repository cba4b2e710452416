"""The list of models and configurations, and the figures in its table of sizes."""

import json
import re
from pathlib import Path

import pytest

from yt8m_tf import catalogue
from yt8m_tf.errors import InputError
from yt8m_tf.models import model_names, registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def entries():
    sizes, published = catalogue.read_sizes(), catalogue.read_published()
    return {selector: catalogue.describe(selector, sizes, published) for selector in catalogue.selectors()}


def _one_of_each_model():
    first = {}
    for selector, row in catalogue.read_sizes().items():
        first.setdefault((row["model"], row["level"]), selector)
    return sorted(first.values())


_FAST = _one_of_each_model()


@pytest.mark.parametrize(
    "selectors",
    [
        pytest.param(_FAST, id="one of each model"),
        pytest.param([s for s in catalogue.selectors() if s not in _FAST], id="the others", marks=pytest.mark.slow),
    ],
)
def test_configurations_build_and_have_the_sizes_of_the_table(selectors):
    sizes = catalogue.read_sizes()
    assert {selector: catalogue.measure(selector) for selector in selectors} == {
        selector: catalogue.describe(selector, sizes, {}) for selector in selectors
    }


def test_the_table_has_every_configuration():
    assert list(catalogue.read_sizes()) == catalogue.selectors(), "run: yt8m-models --sizes=configs/model_sizes.csv"
    with pytest.raises(InputError, match=r"model_sizes\.csv has no row for new\.yaml; write it again"):
        catalogue.describe("new.yaml", catalogue.read_sizes(), {})


def test_every_model_has_a_configuration(entries):
    assert {entry.model for entry in entries.values()} == set(model_names()) - {"weighted_mean"}  # made from runs
    assert all(registry.registration(name).builder.__doc__ for name in model_names())
    assert sum(selector.startswith("zoo.yaml:") for selector in entries) == 113
    assert all(entry.num_parameters > 0 for entry in entries.values())


def test_sizes_by_hand(entries):
    logistic = entries["first_level/logistic.yaml"]
    assert logistic.num_parameters == (1152 + 1) * 3862
    assert logistic.float16_bytes == 2 * 1152 * 3862 + 4 * 3862  # biases stay float32
    bottleneck = entries["first_level/bottleneck_4_neurons.yaml"]
    assert bottleneck.num_parameters == (1152 + 1) * 4 + (4 + 1) * 4 + (4 + 1) * 3862
    assert (bottleneck.published_gap, bottleneck.published_bce) == (0.41079, 0.0029)
    clusters = entries["first_level/cluster_resnet.yaml"]
    assert clusters.float16_bytes > 2 * (clusters.num_parameters + 10_000 * 1152)  # the centroids are not trainable


def test_table(entries):
    shown = [entries["first_level/logistic.yaml"], entries["first_level/vlad_bow.yaml"]]
    header, logistic, vlad = catalogue.format_table(shown).splitlines()
    assert header.split() == ["configuration", "model", "level", "parameters", "float16", "GAP@20", "BCE"]
    assert logistic.split() == ["first_level/logistic.yaml", "logistic", "video", "4,452,886", "8.9", "MB"]
    assert vlad.split()[-2:] == ["0.83959", "0.00110"] and len(vlad) == len(header)


def test_page_of_models_is_up_to_date(entries):
    page = ROOT / "docs" / "MODELS.md"
    expected = catalogue.markdown(list(entries.values()), ROOT / "docs" / "results")
    is_current = page.read_text(encoding="utf-8") == expected  # pytest's diff of the pages would exhaust memory
    assert is_current, "run: yt8m-models --markdown=docs/MODELS.md"


def test_the_table_of_departures_is_complete():
    rows = catalogue.read_departures()
    assert len(rows) == len({row["what"] for row in rows}) == 30
    assert {row["of"] for row in rows} == {"Models", "Losses, optimizers, data", "Hyper-parameters"}
    for row in rows:
        assert all(row.values()) and not any("|" in cell for cell in row.values()), row


def test_page_shows_measured_figures(entries, tmp_path):
    (tmp_path / "first_level_real").mkdir()
    result = {"configuration": "experiments/x.yaml:narrow", "model": "fcn", "gap_at_20": 0.61234}
    (tmp_path / "first_level_real" / "narrow.json").write_text(json.dumps(result))
    rates = {"models": [{"model": "fcn", "text": "3 steps/s of 512 videos"}]}
    (tmp_path / "benchmark_models.json").write_text(json.dumps(rates))
    page = catalogue.markdown(list(entries.values()), tmp_path)
    (section,) = re.findall(r"^## `fcn`\n.*?(?=^## )", page, flags=re.DOTALL | re.MULTILINE)
    assert "On real records: `narrow` 0.6123." in section and "Training: 3 steps/s of 512 videos." in section
    assert section.count("zoo.yaml:") == 4


def test_describing_leaves_no_variables_to_be_initialised():
    """Leftover variables would all be allocated at the end of the next stateless scope."""
    from keras.src.backend.common import global_state

    catalogue.measure("first_level/logistic.yaml")
    assert not global_state.get_global_attribute("uninitialized_variables")
