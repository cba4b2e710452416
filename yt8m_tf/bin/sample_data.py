"""Writes sample data in exactly the original formats of YouTube-8M, of both levels.

  <output_dir>/video/{train,validate,test}NNNN.tfrecord   tf.train.Example: id, labels, mean_rgb, mean_audio
  <output_dir>/frame/{train,validate,test}NNNN.tfrecord   tf.train.SequenceExample: id, labels; rgb and audio as uint8
  <output_dir>/vocabulary.csv     invented names of the classes, in the official format
  <output_dir>/test_labels.csv    the labels of the test split, whose records have none
  <output_dir>/true_labels.csv    the labels of all videos before errors were added, which real data do not have
  <output_dir>/sample_data.json   the parameters, label statistics, and the best reachable GAP

Both levels have the same videos, in files of the same names and in the same order. A video has about 3 labels, which
have a long tail and co-occur by topic. A share of them is wrong, like the machine-generated labels of the real data.
Features are sums of one prototype per class plus noise; clips have scenes, drift and noise about their mean. The
generator knows the exact probability of every label given the features, and so the GAP of the best possible model:
compare results on sample data with that. The same flags give the same bytes.

Clips have only 12 to 30 frames, to be small; --min_frames=120 --max_frames=300 gives real lengths (260 KB each).

With --segments, clips have scenes with different classes, and frame-level records have segment ratings in the format
of 2019: 5 per clip, of half of the classes. Clips have 20 to 40 frames. There are two more files:

  <output_dir>/segment_label_ids.csv   the classes that are rated
  <output_dir>/true_segments.csv       the classes of each scene, before the errors of raters

Then sample_data.json also states the best reachable MAP of segments.

With --from_video_level, frame-level shards are made from existing video-level ones, which may be real: the same ids,
labels, file names and order, and frames whose decoded mean is the video-level feature within half a quantisation step.
Clips then have 120 to 300 frames, or the lengths of --frame_count_histogram. Results on them are synthetic.

Example:

  yt8m-sample-data --output_dir=sample
  yt8m-sample-data --output_dir=segments --segments
  yt8m-sample-data --output_dir=frames --from_video_level='DATA/2/video/train00*.tfrecord'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from yt8m_tf.bin.launch import launch

_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Directory for the sample data.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace earlier sample data in --output_dir.")
_LEVELS = flags.DEFINE_list("levels", ["video", "frame"], "Levels to write.")
_SEED = flags.DEFINE_integer("seed", 0, "Random seed.")

_NUM_TRAIN = flags.DEFINE_integer("num_train", 4200, "Training videos.")
_NUM_VALIDATE = flags.DEFINE_integer("num_validate", 1400, "Validation videos.")
_NUM_TEST = flags.DEFINE_integer("num_test", 700, "Test videos.")
_VIDEOS_PER_SHARD = flags.DEFINE_integer("videos_per_shard", 700, "Videos in a shard; the last may have fewer.")

_NUM_CLASSES = flags.DEFINE_integer("num_classes", 60, "Classes; the real data has 3862.")
_NUM_TOPICS = flags.DEFINE_integer("num_topics", 12, "Topics, which make classes occur together.")
_LABELS_PER_VIDEO = flags.DEFINE_float(
    "labels_per_video", 3.0, "Mean number of labels; with --segments that of a scene."
)
_NOISE_LABELS = flags.DEFINE_float(
    "noise_labels", 0.1, "Share of labels that are wrong; the same number of correct labels is missing."
)
_RGB_SIZE = flags.DEFINE_integer("rgb_size", 1024, "Size of the rgb feature.")
_AUDIO_SIZE = flags.DEFINE_integer("audio_size", 128, "Size of the audio feature; 0 for records without it.")

_SEGMENTS = flags.DEFINE_bool("segments", False, "Write clips of scenes with different classes, and rated segments.")
_MIN_FRAMES = flags.DEFINE_integer("min_frames", None, "Frames of the shortest clip.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", None, "Frames of the longest clip.")
_FRAME_COUNT_HISTOGRAM = flags.DEFINE_string(
    "frame_count_histogram", None, "CSV file with the columns num_frames,num_videos to draw lengths of clips from."
)
_FROM_VIDEO_LEVEL = flags.DEFINE_string(
    "from_video_level", None, "Pattern of video-level shards to make frame-level ones from, instead of generating any."
)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files, locks
    from yt8m_tf.errors import InputError, Interrupted
    from yt8m_tf.sample_data.dataset import write_clips

    directory = files.local_path(_OUTPUT_DIR.value, "--output_dir")
    output_dir, videos = str(directory), _FROM_VIDEO_LEVEL.value
    if videos and _SEGMENTS.value:
        raise InputError(
            "--segments: the contents of --from_video_level videos over time are unknown; give one of these flags"
        )
    try:
        with locks.exclusive(directory, "--output_dir", "writes sample data"):
            if videos:
                summary = write_clips(output_dir, videos, _frame_counts(), _SEED.value, _OVERWRITE.value)
            else:
                summary = _generate(output_dir)
    except KeyboardInterrupt as error:
        raise Interrupted.like(error, f"interrupted; --overwrite makes {output_dir} again") from error
    print(_report(output_dir, summary))


def _generate(output_dir: str) -> dict[str, Any]:
    from yt8m_tf.sample_data.dataset import Layout, write_sample_data
    from yt8m_tf.sample_data.generator import SampleConfig
    from yt8m_tf.sample_data.segment_dataset import write_segment_data

    config = SampleConfig(
        num_classes=_NUM_CLASSES.value,
        num_topics=_NUM_TOPICS.value,
        labels_per_video=_LABELS_PER_VIDEO.value,
        noise_labels=_NOISE_LABELS.value,
        rgb_size=_RGB_SIZE.value,
        audio_size=_AUDIO_SIZE.value,
        seed=_SEED.value,
    )
    num_videos = {"train": _NUM_TRAIN.value, "validate": _NUM_VALIDATE.value, "test": _NUM_TEST.value}
    layout = Layout(num_videos, _VIDEOS_PER_SHARD.value, _LEVELS.value)
    write = write_segment_data if _SEGMENTS.value else write_sample_data
    return write(output_dir, config, layout, _frame_counts(), _OVERWRITE.value)


def _frame_counts() -> Any:
    from yt8m_tf import schema
    from yt8m_tf.sample_data.frames import FrameCounts

    if _FRAME_COUNT_HISTOGRAM.value:
        shortest, longest = 1, schema.MAX_FRAMES
    else:
        shortest, longest = (120, 300) if _FROM_VIDEO_LEVEL.value else (20, 40) if _SEGMENTS.value else (12, 30)
    shortest = shortest if _MIN_FRAMES.value is None else _MIN_FRAMES.value
    longest = longest if _MAX_FRAMES.value is None else _MAX_FRAMES.value
    return FrameCounts(shortest, longest, _FRAME_COUNT_HISTOGRAM.value)


def _report(output_dir: str, summary: dict[str, Any]) -> str:
    lines = [f"Wrote {output_dir}:"]
    for level in ("video", "frame"):
        sizes = [size for name, size in summary["shard_bytes"].items() if name.startswith(level + "/")]
        if sizes:
            lines.append(f"  {level}/  {len(sizes)} shards, {sum(sizes) / 1e6:.1f} MB")
    for split, values in summary.get("splits", {}).items():
        text = f"  {split}: {values['num_videos']} videos, {values['labels_per_video']:.2f} labels per video"
        if "num_ratings" in values:
            text += f", {values['num_ratings']} ratings of segments, {values['num_present']} of them present"
        lines.append(text)
    for split, gaps in summary.get("best_reachable_gap", {}).items():
        if gaps:
            reached = ", ".join(f"{gap:.4f} ({level} level)" for level, gap in gaps.items())
            prior = summary["class_prior_gap"][split]
            lines.append(f"  best reachable GAP on {split}: {reached}; the class prior alone: {prior:.4f}")
    for split, maps in summary.get("best_reachable_map", {}).items():
        if maps:
            reached = f"{maps['clip']:.4f} given the clip, {maps['segment']:.4f} given only the scene"
            lines.append(
                f"  best reachable MAP on {split}: {reached}; one score per video: {summary['video_map'][split]:.4f}"
            )
    return "\n".join(lines)


def run() -> None:
    """Runs the console script."""
    launch(main)


if __name__ == "__main__":
    run()
