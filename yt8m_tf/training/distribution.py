"""One device, several devices, several machines."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf.errors import InputError

# What the others see, at the next collective, when a worker is gone; or another type with one of these words.
_PEER_FAILURES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_PEER_WORDS = ("collective", "incarnation")


def make_strategy(devices: str = "") -> tf.distribute.Strategy:
    """The distribution strategy for this process.

    Args:
      devices: comma-separated names of devices to mirror the model on, such as "gpu:0,gpu:1"; "all" for every GPU; ""
        for the first GPU, or the CPU where there is none.

    Returns:
      `MultiWorkerMirroredStrategy` where the environment variable TF_CONFIG names a cluster; `MirroredStrategy` for
      several devices; else the default strategy of one device.

    Raises:
      InputError: a device that this machine does not have, or a TF_CONFIG that is not JSON.
    """
    if _cluster():
        # Must come before TensorFlow looks at any device: collectives are configured at its start.
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        if threading.current_thread() is threading.main_thread() and (handler := signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, handler)  # the chief's TensorFlow has taken it for itself
        return strategy
    available = [device.name.removeprefix("/device:").lower() for device in tf.config.list_logical_devices()]
    gpus = [name for name in available if name.startswith("gpu")]
    chosen = gpus if devices == "all" else [name.strip().lower() for name in devices.split(",") if name.strip()]
    if missing := [name for name in chosen if name not in available]:
        raise InputError(f"--devices={devices}: this process has no '{missing[0]}'; it has {', '.join(available)}")
    if len(chosen) > 1:
        return tf.distribute.MirroredStrategy(chosen)
    return tf.distribute.OneDeviceStrategy(chosen[0]) if chosen else tf.distribute.get_strategy()


def _cluster() -> Mapping[str, list[str]]:
    """The cluster of the environment variable TF_CONFIG: {"worker": [addresses]}, perhaps with a "chief"."""
    try:
        return json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"environment variable TF_CONFIG: not a JSON object ({error})") from error


def is_single(strategy: tf.distribute.Strategy) -> bool:
    """Whether there is just one device, and nothing to distribute."""
    return not isinstance(strategy, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy)


def compiles_with_xla(model: keras.Model) -> bool:
    """Whether XLA can compile `model` on this machine: unless one of its layers says no (`supports_jit`).

    Recurrent layers do where there is a GPU. They run on cuDNN's fused kernels there, all frames in a few calls, which
    XLA cannot compile; of the loop over frames that it can, each of T turns would launch kernels of its own. On a CPU
    there is only the loop, and XLA compiles it; whether that pays depends on the width, see `layers.recurrent`.
    """
    return all(layer.supports_jit for layer in model._flatten_layers())


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """This process's number among the workers, 0 for the chief."""
    if num_workers(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    after_chief = "chief" in resolver.cluster_spec().as_dict() and resolver.task_type == "worker"
    return int(resolver.task_id) + after_chief


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(len(jobs.get(job, ())) for job in ("chief", "worker"))


def lost_a_worker(strategy: tf.distribute.Strategy, error: tf.errors.OpError) -> bool:
    """Whether an error is one of several workers' that another one is gone, or has been started again alone."""
    told = error.message.lower()
    known = isinstance(error, _PEER_FAILURES) or any(word in told for word in _PEER_WORDS)
    return num_workers(strategy) > 1 and known


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Replicas in this process."""
    return strategy.num_replicas_in_sync // num_workers(strategy)


def gather_texts(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """Every worker's text, in the order of the workers."""
    own = np.frombuffer(text.encode(), np.uint8).astype(np.int64)  # collectives know few types
    gathered = gather(strategy, {"length": np.array([len(own)], np.int64), "text": own})
    parts = np.split(gathered["text"].astype(np.uint8), np.cumsum(gathered["length"])[:-1])
    return [part.tobytes().decode() for part in parts]


def gather(strategy: tf.distribute.Strategy, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every worker's arrays, one after the other along the first axis; the lengths there may differ."""
    if num_workers(strategy) == 1:
        return dict(arrays)
    gathered = {}
    for name, array in arrays.items():

        def mine(context: tf.distribute.ValueContext, array: np.ndarray = array) -> tf.Tensor:
            first = context.replica_id_in_sync_group % local_replicas(strategy) == 0
            return tf.constant(array if first else array[:0])

        values = strategy.experimental_distribute_values_from_function(mine)
        gathered[name] = strategy.gather(values, axis=0).numpy()
    return gathered
