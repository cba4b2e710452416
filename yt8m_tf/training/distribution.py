"""Distribution of training over devices and machines."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from yt8m_tf.console.progress import Progress
from yt8m_tf.errors import InputError

# Errors at the next collective after a worker is gone; other types are recognised by one of these words.
_PEER_FAILURES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_PEER_WORDS = ("collective", "incarnation")
_JOBS = ("chief", "worker")
# The hour is the time-out of TensorFlow's coordination service, which Python cannot set.
_CONNECTING = "if one of them has ended, the others wait for up to an hour: stop them, and start all again"
_SHOWN = 200  # characters of TensorFlow's message
_ADDRESS = re.compile(r"[^\s/]+:[0-9]{1,5}")
_TF_CONFIG_HINT = """write {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}"""


def make_strategy(devices: str = "") -> tf.distribute.Strategy:
    """Creates the distribution strategy of this process.

    Args:
      devices: comma-separated names of devices to mirror the model on, such as "gpu:0,gpu:1"; "all" for every GPU; ""
        for the first GPU, or for the CPU if there is none.

    Returns:
      `MultiWorkerMirroredStrategy` if the environment variable TF_CONFIG names a cluster; `MirroredStrategy` for
      several devices; otherwise the default strategy of one device.

    Raises:
      InputError: this machine lacks a device, TF_CONFIG is not valid (`read_cluster`), or the cluster does not connect.
    """
    if cluster := read_cluster():
        number = sum(map(len, cluster.values()))
        Progress.write(f"waiting for all {number} processes of TF_CONFIG; {_CONNECTING}", file=sys.stderr)
        # Must come before TensorFlow initializes its devices, because collectives are configured then.
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            reason = " ".join(error.message.split())[:_SHOWN]
            raise InputError(
                f"environment variable TF_CONFIG: its {number} processes did not connect ({reason}); start the same"
                " command again in all of them"
            ) from error
        if threading.current_thread() is threading.main_thread() and (handler := signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, handler)  # TensorFlow has replaced the handler in the chief
        return strategy
    available = [device.name.removeprefix("/device:").lower() for device in tf.config.list_logical_devices()]
    gpus = [name for name in available if name.startswith("gpu")]
    chosen = gpus if devices == "all" else [name.strip().lower() for name in devices.split(",") if name.strip()]
    if missing := [name for name in chosen if name not in available]:
        raise InputError(f"--devices={devices}: this process has no '{missing[0]}'; it has {', '.join(available)}")
    if len(chosen) > 1:
        return tf.distribute.MirroredStrategy(chosen)
    return tf.distribute.OneDeviceStrategy(chosen[0]) if chosen else tf.distribute.get_strategy()


def read_cluster() -> dict[str, list[str]]:
    """Reads the cluster of the environment variable TF_CONFIG: addresses by job, "worker" or "chief"; {} for none.

    Raises:
      InputError: it is not a JSON object, or does not state a cluster and this process's task in it.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise TypeError(f"it is a {type(config).__name__}")
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"environment variable TF_CONFIG: not a JSON object ({error}); {_TF_CONFIG_HINT}") from error
    cluster, task = config.get("cluster") or {}, config.get("task")
    if not cluster:
        return {}
    if problem := _cluster_problem(cluster) or _task_problem(task, cluster):
        raise InputError(f"environment variable TF_CONFIG: {problem}; {_TF_CONFIG_HINT}")
    return cluster


def _cluster_problem(cluster: Any) -> str | None:
    if not isinstance(cluster, dict) or set(cluster) - set(_JOBS):
        return f"cluster must contain the jobs {' and '.join(_JOBS)}, and no others"
    if wrong := [job for job, addresses in cluster.items() if not isinstance(addresses, list) or not addresses]:
        return f"cluster.{wrong[0]} must be a list of addresses"
    addresses = [address for job in cluster.values() for address in job]
    for address in addresses:
        if not (isinstance(address, str) and _ADDRESS.fullmatch(address)):
            return f"{address!r} is not an address, HOST:PORT"
        if addresses.count(address) > 1:
            return f"'{address}' occurs twice"
    return None


def _task_problem(task: Any, cluster: Mapping[str, list[str]]) -> str | None:
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        return "task must say which process of the cluster this is, by type and index"
    if not isinstance(task["type"], str) or task["type"] not in cluster:
        return f"task.type {task['type']!r} is not a job of the cluster: {', '.join(cluster)}"
    last = len(cluster[task["type"]]) - 1
    if type(task["index"]) is not int or not 0 <= task["index"] <= last:
        return f"task.index {task['index']!r} is not one of 0 to {last}, of the job {task['type']}"
    return None


def is_single(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether there is only one device, so that nothing is distributed."""
    return not isinstance(strategy, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy)


def compiles_with_xla(model: keras.Model) -> bool:
    """Returns whether XLA is to compile `model` on this machine: all of its layers allow it (`supports_jit`).

    Recurrent layers forbid it. On a GPU they run on cuDNN's fused kernels, which take all frames in a few calls, and
    which XLA cannot compile. XLA could compile the loop over frames, but each of its T iterations would launch its own
    kernels. On a CPU there is only the loop, for which XLA takes more memory and no less time (`layers.recurrent`).
    """
    return all(layer.supports_jit for layer in model._flatten_layers())


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns this process's number among the workers, 0 for the chief."""
    if num_workers(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    after_chief = "chief" in resolver.cluster_spec().as_dict() and resolver.task_type == "worker"
    return int(resolver.task_id) + after_chief


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()
    return sum(len(jobs.get(job, ())) for job in ("chief", "worker"))


def lost_a_worker(strategy: tf.distribute.Strategy, error: tf.errors.OpError) -> bool:
    """Returns whether an error says that another worker is gone, or has been restarted alone."""
    told = error.message.lower()
    known = isinstance(error, _PEER_FAILURES) or any(word in told for word in _PEER_WORDS)
    return num_workers(strategy) > 1 and known


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of replicas in this process."""
    return strategy.num_replicas_in_sync // num_workers(strategy)


def share(strategy: tf.distribute.Strategy, batch: Mapping[str, tf.Tensor]) -> Mapping[str, Any]:
    """Splits a batch of this worker, [B, ...] each, into equal parts for its replicas, as `strategy.run` takes it."""
    if is_single(strategy):
        return batch
    replicas = local_replicas(strategy)
    with tf.device("cpu"):  # where the batch is; otherwise all of it would go through the first GPU
        parts = {name: tf.split(value, replicas) for name, value in batch.items()}

    def own(context: tf.distribute.ValueContext) -> dict[str, tf.Tensor]:
        return {name: values[context.replica_id_in_sync_group % replicas] for name, values in parts.items()}

    return strategy.experimental_distribute_values_from_function(own)


def gather_texts(strategy: tf.distribute.Strategy, text: str) -> list[str]:
    """Returns the texts of all workers, in their order."""
    own = np.frombuffer(text.encode(), np.uint8).astype(np.int64)  # collectives support few types
    gathered = gather(strategy, {"length": np.array([len(own)], np.int64), "text": own})
    parts = np.split(gathered["text"].astype(np.uint8), np.cumsum(gathered["length"])[:-1])
    return [part.tobytes().decode() for part in parts]


def gather(strategy: tf.distribute.Strategy, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Concatenates the arrays of all workers along the first axis, whose lengths may differ."""
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
