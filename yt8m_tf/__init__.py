"""Large-scale multi-label video classification on YouTube-8M with TensorFlow 2 and Keras 3.

The names below are the Python API (docs/PYTHON.md). Each is imported when it is first used: `import yt8m_tf` itself
imports no TensorFlow.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# TensorFlow and Keras read these when they are first imported. The log level hides notices, such as those of CUDA and
# oneDNN; set it to 0 to see them.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from yt8m_tf.config.data import DataConfig
    from yt8m_tf.config.input_spec import InputSpec
    from yt8m_tf.errors import InputError
    from yt8m_tf.keras_fit.dataset import make_dataset
    from yt8m_tf.keras_fit.gap import GlobalAveragePrecision
    from yt8m_tf.keras_fit.loss import Loss
    from yt8m_tf.layers.attention_pooling import AttentionPooling
    from yt8m_tf.layers.gating import context_gating
    from yt8m_tf.layers.masking import masked_max, masked_mean, sequence_mask
    from yt8m_tf.layers.moe import MixtureOfExperts
    from yt8m_tf.layers.vlad import VLAD, FisherVectors, soft_assignment, unit_descriptors
    from yt8m_tf.models import build_model, model_names
    from yt8m_tf.models.activations import activations
    from yt8m_tf.serving.exported import ExportedModel, load_export

# Modules of the names above, for lazy imports.
_MODULES = {
    "DataConfig": "config.data",
    "InputSpec": "config.input_spec",
    "InputError": "errors",
    "make_dataset": "keras_fit.dataset",
    "GlobalAveragePrecision": "keras_fit.gap",
    "Loss": "keras_fit.loss",
    "AttentionPooling": "layers.attention_pooling",
    "context_gating": "layers.gating",
    "masked_max": "layers.masking",
    "masked_mean": "layers.masking",
    "sequence_mask": "layers.masking",
    "MixtureOfExperts": "layers.moe",
    "VLAD": "layers.vlad",
    "FisherVectors": "layers.vlad",
    "soft_assignment": "layers.vlad",
    "unit_descriptors": "layers.vlad",
    "build_model": "models",
    "model_names": "models",
    "activations": "models.activations",
    "ExportedModel": "serving.exported",
    "load_export": "serving.exported",
}

__all__ = [
    "VLAD",
    "AttentionPooling",
    "DataConfig",
    "ExportedModel",
    "FisherVectors",
    "GlobalAveragePrecision",
    "InputError",
    "InputSpec",
    "Loss",
    "MixtureOfExperts",
    "activations",
    "build_model",
    "context_gating",
    "load_export",
    "make_dataset",
    "masked_max",
    "masked_mean",
    "model_names",
    "sequence_mask",
    "soft_assignment",
    "unit_descriptors",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'yt8m_tf' has no attribute '{name}'")
    if not _MODULES[name].startswith(("config.", "errors")):
        from yt8m_tf.console.quiet import import_quietly

        import_quietly()
    value = getattr(importlib.import_module(f"yt8m_tf.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
