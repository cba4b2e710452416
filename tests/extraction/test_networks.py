"""Any image model as a backbone: sizes, scaling, layers, and refused models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from backbones import write_picture_model

from yt8m_tf.config import strict_yaml
from yt8m_tf.conversion.encoding import Storage
from yt8m_tf.errors import InputError
from yt8m_tf.extraction import networks
from yt8m_tf.extraction.backbones import Recipe, load_backbones, parse_features, read_recipe
from yt8m_tf.extraction.log_mel import log_mel


def _pictures(rng: np.random.Generator, size: int, number: int = 3) -> list[np.ndarray]:
    return [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in range(number)]


def test_a_keras_model_and_one_of_its_layers(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_picture_model(tmp_path / "a.keras")
    model = keras.models.load_model(path)
    recipe = Recipe({"whole": f"keras:{path}", "part": f"keras:{path}:conv32"})
    whole, part = load_backbones(recipe).pictures.values()
    pictures = _pictures(rng, 48)
    assert (whole.size, part.size) == (192, 32)
    wanted = model(np.stack(pictures).astype(np.float32)).numpy()
    np.testing.assert_allclose(whole([whole.prepare(p) for p in pictures]), wanted, atol=1e-6)
    # This layer's output has positions; the network takes the mean over them.
    layer = keras.Model(model.inputs[0], model.get_layer("conv32").output)
    wanted = layer(np.stack(pictures).astype(np.float32)).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(part([part.prepare(p) for p in pictures]), wanted, atol=1e-6)


def test_pictures_are_resized_as_wholes(tmp_path: Path) -> None:
    """A picture of two halves keeps its two halves at either size."""
    inputs = keras.Input([None, None, 3])
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(tmp_path / "a.keras")
    recipe = Recipe({"rgb": f"keras:{tmp_path}/a.keras"}, image_size=8)
    (backbone,) = load_backbones(recipe).pictures.values()
    picture = np.zeros((30, 50, 3), np.uint8)
    picture[:, 25:] = 200
    prepared = backbone.prepare(picture)
    assert prepared.shape == (8, 8, 3)
    np.testing.assert_allclose(prepared[:, :3], 0, atol=1e-3)
    np.testing.assert_allclose(prepared[:, 5:], 200, atol=1e-3)


@pytest.mark.parametrize(
    ("scaling", "formula"),
    [
        ("none", lambda x: x),
        ("unit", lambda x: x / 255),
        ("tf", lambda x: x / 127.5 - 1),
        ("torch", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("caffe", lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
    ],
)
def test_scaling(
    scaling: str, formula: Callable[[np.ndarray], np.ndarray], tmp_path: Path, rng: np.random.Generator
) -> None:
    inputs = keras.Input([4, 4, 3])
    keras.Model([inputs], keras.layers.Flatten()(inputs)).save(tmp_path / "a.keras")
    (backbone,) = load_backbones(Recipe({"x": f"keras:{tmp_path}/a.keras"}, scaling=scaling)).pictures.values()
    pictures = _pictures(rng, 4)
    wanted = formula(np.stack(pictures).astype(np.float64)).reshape(3, -1)
    np.testing.assert_allclose(backbone([backbone.prepare(p) for p in pictures]), wanted, rtol=1e-5, atol=1e-5)


def test_sound_goes_in_as_examples_or_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    inputs = keras.Input([96, 64])
    keras.Model(inputs, keras.layers.GlobalMaxPooling1D()(inputs)).save(tmp_path / "mel.keras")
    inputs = keras.Input([16000])
    keras.Model(inputs, keras.layers.Reshape([160, 100])(inputs)[:, :, 0]).save(tmp_path / "wave.keras")
    recipe = Recipe({"a": f"keras:{tmp_path}/mel.keras", "b": f"keras:{tmp_path}/wave.keras", "c": "log_mel"})
    found = load_backbones(recipe)
    assert found.sizes == {"a": 64, "b": 160, "c": 64} and not found.pictures
    seconds = rng.uniform(-1, 1, (2, 16000)).astype(np.float32)
    examples = log_mel(seconds)
    np.testing.assert_allclose(found.sounds["a"](seconds), examples.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.sounds["b"](seconds), seconds[:, ::100], atol=1e-6)
    np.testing.assert_allclose(found.sounds["c"](seconds), examples.mean(axis=1), atol=1e-6)


def test_a_saved_model(tmp_path: Path, rng: np.random.Generator) -> None:
    """The SavedModel takes uint8 pictures of any size, and has two outputs, one of which is selected."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def serve(pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        mean = tf.reduce_mean(tf.cast(pictures, tf.float32), axis=[1, 2])
        return {"mean": mean, "double": 2 * mean}

    path = tmp_path / "model[1]"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    (backbone,) = load_backbones(Recipe({"x": f"saved_model:{path}:double"}, image_size=6)).pictures.values()
    pictures = _pictures(rng, 6)
    wanted = 2 * np.stack(pictures).mean(axis=(1, 2))
    np.testing.assert_allclose(backbone([backbone.prepare(p) for p in pictures]), wanted, rtol=1e-5)
    with pytest.raises(InputError, match="has the outputs double, mean; name one, such as x=saved_model:"):
        networks.load_saved_model(path, None, f"x=saved_model:{path}")
    with pytest.raises(InputError, match="has no such output; did you mean 'mean'"):
        networks.load_saved_model(path, "meen", "x")


_MOBILENET = Recipe({"rgb": "applications:MobileNet"}, image_size=32)
_WEIGHTS = "mobilenet_1_0_224_tf_no_top.h5"


def test_an_application_without_its_weights_says_which_file_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(InputError, match="has no such network; did you mean 'MobileNet'"):
        networks.load_application("MobilNet", None, "x")
    with pytest.raises(InputError) as error:
        load_backbones(_MOBILENET)
    wanted = f"'{_WEIGHTS}' is not in {tmp_path}/models"
    assert wanted in str(error.value) and "published at https://" in str(error.value)


@pytest.mark.slow
def test_an_application_takes_its_weights_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / _WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(InputError, match="its cached weights cannot be loaded"):
        load_backbones(_MOBILENET)
    assert (tmp_path / "models" / _WEIGHTS).exists()  # the user's file is kept

    model = keras.applications.MobileNet(include_top=False, pooling="avg", weights=None, input_shape=(32, 32, 3))
    model.save(tmp_path / "whole.h5")  # the published files have this old format
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "models" / _WEIGHTS, "w") as weights:
        for key, value in whole["model_weights"].attrs.items():
            weights.attrs[key] = value
        for group in whole["model_weights"]:
            whole.copy(f"model_weights/{group}", weights)
    (backbone,) = load_backbones(_MOBILENET).pictures.values()
    pictures = _pictures(rng, 32)
    wanted = model(np.stack(pictures).astype(np.float32) / 127.5 - 1).numpy()
    np.testing.assert_allclose(backbone([backbone.prepare(p) for p in pictures]), wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("inceptoin", "no such backbone; give one of inception, vggish, log_mel, keras:FILE.keras"),
        ("inception", "needs --inception=DIR"),
        ("keras:{}/none.keras", "no such file"),
        ("keras:{}/noise.keras", "cannot be loaded"),
        ("keras:{}/a.keras:conv_32", "has no such layer; did you mean 'conv32'"),
        ("saved_model:{}", "not a SavedModel with a signature 'serving_default'"),
        ("keras:{}/vector.keras", "it must take pictures"),
    ],
)
def test_unusable_input_gives_a_one_line_error(text: str, problem: str, tmp_path: Path) -> None:
    write_picture_model(tmp_path / "a.keras")
    (tmp_path / "noise.keras").write_bytes(b"noise")
    inputs = keras.Input([7])
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "vector.keras")
    with pytest.raises(InputError) as error:
        load_backbones(Recipe({"x": text.format(tmp_path)}))
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_another_size_than_the_model_takes(tmp_path: Path) -> None:
    path = write_picture_model(tmp_path / "a.keras")
    with pytest.raises(InputError, match=r"--image_size=99: x=keras:.* takes 48"):
        load_backbones(Recipe({"x": f"keras:{path}"}, image_size=99))


def test_a_file_with_code_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input([4, 4, 3])
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "a.keras")
    with pytest.raises(InputError, match=r"cannot be loaded \(.*lambda"):
        networks.load_keras(tmp_path / "a.keras", None, "x")


def test_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recipes contain absolute paths, since they are used from elsewhere."""
    monkeypatch.chdir(tmp_path)
    wanted = {"rgb": "inception", "x": f"keras:{tmp_path}/a=b.keras:c", "y": f"saved_model:{tmp_path}/d:e"}
    assert parse_features(["rgb=inception", "x=keras:a=b.keras:c", "y=saved_model:d:e"]) == wanted
    for values, problem in (
        (["inception"], "must be NAME=BACKBONE"),
        (["a=log_mel"] * 2, "occurs twice"),
        (["labels=log_mel"], "is the name of another field of records"),
    ):
        with pytest.raises(InputError, match=problem):
            parse_features(values)


def test_a_recipe_is_read_again(tmp_path: Path) -> None:
    recipe = Recipe({"rgb": "inception"}, inception=str(tmp_path), max_seconds=7, storage=Storage("uint8", 0.0, 6.0))
    (tmp_path / "extraction.json").write_text(json.dumps(strict_yaml.to_dict(recipe)))
    assert read_recipe(tmp_path, "--extract") == recipe == read_recipe(tmp_path / "extraction.json", "--extract")
    with pytest.raises(InputError, match=r"nothing.*: cannot be read \(No such file.*give --extract=DIR"):
        read_recipe(tmp_path / "nothing", "--extract")
    (tmp_path / "extraction.json").write_text('{"features": {}}')
    with pytest.raises(InputError, match=r"extraction\.json: names no features; give --extract=DIR, where"):
        read_recipe(tmp_path, "--extract")
