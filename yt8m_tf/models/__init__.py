"""First-level models: importing this package registers all of them."""

from yt8m_tf.models import (  # noqa: F401  (imported to be registered)
    linear,
    linear_combinations,
    mean_fcn,
    resnet_like,
)
from yt8m_tf.models.registry import build_model, model_config, model_names, register_model

__all__ = ["build_model", "model_config", "model_names", "register_model"]
