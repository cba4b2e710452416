"""Models of both levels; importing this package registers all of them."""

from yt8m_tf.models import (  # noqa: F401  (imported to be registered)
    attention_net,
    bilinear_fcn,
    cluster_resnet,
    dbof,
    early_concat_rnn,
    fcn,
    gated_fcn,
    hierarchies,
    kernel_ridge,
    linear,
    linear_combinations,
    lstm_bi_attention,
    mean_fcn,
    nearest_neighbors,
    netvlad,
    nextvlad,
    repeat_rnn,
    resnet_like,
    resnet_like_noise,
    rnn,
    small_net,
    sparse_kernel_ridge,
    stack,
    time_distributed_conv,
    time_distributed_dense_max,
    time_distributed_dense_sort,
    transformer,
    vlad_bow,
    weighted_mean,
)
from yt8m_tf.models.registry import (
    build_model,
    build_without_weights,
    model_config,
    model_names,
    register_model,
)

__all__ = ["build_model", "build_without_weights", "model_config", "model_names", "register_model"]
