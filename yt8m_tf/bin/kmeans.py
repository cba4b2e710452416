"""Fits centroids of frames for the model cluster_resnet, with scikit-learn's MiniBatchKMeans.

Draws frames from the first clips of every shard, and writes one file of centroids of the concatenated features. The
model's configuration names the file as model.centroids, relative to --data_dir. A sample of 1,000,000 frames takes 1.2
GB of memory. Fitting 10,000 clusters to it takes about half an hour on two cores once the shards are read.

For features that are not stored as in YouTube-8M, give the model's configuration as --config.

Example:

  yt8m-kmeans --input='DATA/2/frame/train*.tfrecord' --output=DATA/2/frame/centroids.npz
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin import fault_flags
from yt8m_tf.bin.launch import launch
from yt8m_tf.console.quiet import import_quietly

_INPUT = flags.DEFINE_list("input", None, "Patterns of frame-level shards, separated by commas.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The file of centroids to write, .npz.", required=True)
_FEATURES = flags.DEFINE_list(
    "features", ["rgb:1024", "audio:128"], "NAME:SIZE of each feature, in the order of the model's data.features."
)
_CONFIG = flags.DEFINE_string(
    "config", None, "Instead of --features: configuration whose section 'data' describes the shards."
)
_SET = flags.DEFINE_multi_string(
    "set", [], "Override of a key of --config, such as data.features.clip=512; repeatable."
)
_NUM_CLUSTERS = flags.DEFINE_integer("num_clusters", 10_000, "Centroids.", lower_bound=1)
_NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", 1_000_000, "Frames to fit the centroids to, rounded up to whole clips of every shard.", lower_bound=1
)
_FRAMES_PER_CLIP = flags.DEFINE_integer("frames_per_clip", 8, "Frames drawn from each clip.", lower_bound=1)
_PASSES = flags.DEFINE_integer("passes", 3, "Passes over the sample.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 16_384, "Frames per update; --num_clusters if that is more.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Random seed of the sample and the fit.", lower_bound=0, upper_bound=2**32 - 1)
flags.adopt_module_key_flags(fault_flags)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.config.experiment import load_values
    from yt8m_tf.errors import InputError, Interrupted

    output = files.local_path(_OUTPUT.value, "--output")
    if _CONFIG.value and flags.FLAGS["features"].present:
        raise InputError(f"--config={_CONFIG.value}: already gives the features; leave --features out")
    # Errors in the configuration are reported before the long import.
    values = load_values(_CONFIG.value, _SET.value) if _CONFIG.value else None
    import_quietly()

    from yt8m_tf.codebook import centroids, kmeans
    from yt8m_tf.config.data import RecordsConfig
    from yt8m_tf.data.shards import list_shards

    if values is not None:
        from yt8m_tf.models.registry import parse_experiment

        data, features_flag = parse_experiment(values).data.records, ""
        if data.level == "video":
            raise InputError(
                f"--config={_CONFIG.value}: data.level is video, and only clips have frames; give a configuration with"
                " data.level: frame"
            )
    else:
        data = RecordsConfig("frame", kmeans.parse_features(_FEATURES.value))
        features_flag = f"--features={centroids.as_flag(data.sizes)}"
    faults = fault_flags.faults()
    shards, seed = list_shards(_INPUT.value, source="--input"), _SEED.value
    files.check_no_input([output], shards, f"--output={output}")
    files.check_writable(output, "--output")
    try:
        sample = kmeans.sample_frames(
            shards,
            data,
            _NUM_FRAMES.value,
            frames_per_clip=_FRAMES_PER_CLIP.value,
            seed=seed,
            faults=faults,
            features_flag=features_flag,
        )
        result = kmeans.fit(
            sample, data.sizes, _NUM_CLUSTERS.value, batch_size=_BATCH_SIZE.value, num_passes=_PASSES.value, seed=seed
        )
    except KeyboardInterrupt as error:
        raise Interrupted.like(
            error, "interrupted; nothing was written; run the same command again to start over"
        ) from error
    centroids.write(result, output)
    print(
        f"{output}: {_NUM_CLUSTERS.value:,} clusters of {result.num_frames:,} frames from {len(shards):,} shards; mean"
        f" squared distance {result.mean_squared_distance:.4f}, {result.explained:.1%} of the variance explained,"
        f" {result.num_empty:,} clusters empty"
    )
    for line in faults.summary():
        print(line)


def run() -> None:
    """Runs the console script."""
    launch(main, framework=False)


if __name__ == "__main__":
    run()
