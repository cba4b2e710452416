"""First-level models: importing this package registers all of them."""

from yt8m_tf.models import linear, mean_fcn, resnet_like  # noqa: F401  (imported to be registered)
from yt8m_tf.models.registry import build_model, model_config, model_names, register_model

__all__ = ["build_model", "model_config", "model_names", "register_model"]
