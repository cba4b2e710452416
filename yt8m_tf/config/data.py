"""The `data` section of a run's configuration: which records are read, and how.

In YAML the section is flat. Here it has parts, so that code that reads records depends only on their contents:
`RecordsConfig` and `TargetsConfig` (what records contain), `ShardsConfig` (where they are), `FoldsConfig` and
`OrderConfig`. `DataConfig` combines them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from yt8m_tf import schema
from yt8m_tf.config import checks
from yt8m_tf.config.features import FeatureConfig, completed
from yt8m_tf.config.frames import FramesConfig
from yt8m_tf.config.input_spec import InputSpec
from yt8m_tf.config.segments import SegmentsConfig

# The names that `data.keys` may have besides those of features.
_OTHER_KEYS = frozenset({"id", "labels"})
# The names of other entries of records, and of batches, which features cannot have.
_RECORD_FIELDS = frozenset({*schema.ID_KEYS, schema.LABELS_KEY})
_TAKEN = _RECORD_FIELDS | {"num_frames", "valid", "position", "unlabelled_ids", "teacher_fold"}
_TAKEN |= {"soft_classes", "soft_scores"}
# The same for batches of segments.
_TAKEN_BY_SEGMENTS = frozenset({"rated_classes", "ratings"})


@dataclasses.dataclass(frozen=True)
class RecordsConfig:
    """The features in the records.

    Attributes:
      level: "video", one vector per feature and video, or "frame", a sequence of vectors.
      features: feature name to its size D, or to a mapping that also says how it is stored (`FeatureConfig`). Leave a
        feature out to train only on the others.
      keys: keys in the records, if they are not the standard ones: a feature's name to its key (standard: `mean_rgb`
        for the feature `rgb` at video level, `rgb` itself at frame level), `id` to the key of the id (standard: `id`
        or `video_id`, whichever a record has), `labels` to the key of the labels (standard: `labels`).
      max_frames: the most frames of a clip; later frames are cut off.
      frame_lengths: lengths in frames to which clips are padded: each batch to the shortest that fits (each length
        compiles once under XLA); `max_frames` is always one of them.
      max_frame_difference: the most frames by which the features of a clip may differ in length; the shorter one
        counts. null: any number.
      frames: sampling and preprocessing of frames.
    """

    level: schema.Level = "video"
    features: Mapping[str, int | FeatureConfig] = dataclasses.field(default_factory=lambda: dict(schema.FEATURE_SIZES))
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    max_frames: int = schema.MAX_FRAMES
    frame_lengths: tuple[int, ...] = ()
    max_frame_difference: int | None = 1
    frames: FramesConfig = dataclasses.field(default_factory=FramesConfig)

    def __post_init__(self) -> None:
        checks.positive(self, "max_frames")
        if self.max_frame_difference is not None:
            checks.at_least(self, 0, "max_frame_difference")
        if not self.features:
            raise ValueError("data.features must name at least one feature")
        if wrong := [name for name, size in self.features.items() if isinstance(size, int) and size <= 0]:
            raise ValueError(f"data.features.{wrong[0]} must be positive, got {self.features[wrong[0]]}")
        if taken := self.features.keys() & _TAKEN:
            raise ValueError(
                f"data.features.{min(taken)}: batches use that name for something else;"
                " rename the feature, and give its key in records in data.keys"
            )
        if unknown := set(self.keys) - {*self.features, *_OTHER_KEYS}:
            raise ValueError(f"data.keys names '{min(unknown)}', which data.features does not have")
        fields = {*self.id_keys, self.labels_key}
        if wrong := [name for name, key in self.keys.items() if name in self.features and key in fields]:
            raise ValueError(
                f"data.keys.{wrong[0]}: '{self.keys[wrong[0]]}' is the key of the id or the labels; name the key of the"
                " feature"
            )
        self._check_means()
        if self.level == "video" and self.frames.steps(training=True):
            raise ValueError("data.frames is for clips: leave it out, or set data.level: frame")

    def _check_means(self) -> None:
        stored = {name: completed(feature, self.level) for name, feature in self.features.items()}
        for name, feature in stored.items():
            if feature.mean_of is None:
                continue
            if self.level == "video":
                raise ValueError(f"data.features.{name}.mean_of is for clips: leave it out, or set data.level: frame")
            source = stored.get(feature.mean_of)
            if source is None or source.mean_of is not None or source.size != feature.size:
                raise ValueError(
                    f"data.features.{name}.mean_of: '{feature.mean_of}' is not a frame-level feature of the same size,"
                    f" {feature.size}"
                )

    @property
    def stored(self) -> dict[str, FeatureConfig]:
        """Feature name to how it is stored, with the defaults of the level filled in."""
        return {name: completed(feature, self.level) for name, feature in self.features.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Feature name to size."""
        return {name: feature.size for name, feature in self.stored.items()}

    @property
    def id_keys(self) -> tuple[str, ...]:
        """The keys under which a record may have its id: it has one of them."""
        return schema.id_keys_of(self.keys)

    @property
    def labels_key(self) -> str:
        """The key of the labels in a record."""
        return schema.labels_key_of(self.keys)

    @property
    def other_keys(self) -> dict[str, str]:
        """The entries of `keys` for the id and the labels."""
        return {name: key for name, key in self.keys.items() if name in _OTHER_KEYS}

    def key_of(self, feature: str) -> str:
        """Returns the key of `feature` in a record."""
        return self.keys.get(feature, f"mean_{feature}" if self.level == "video" else feature)

    @property
    def padded_lengths(self) -> list[int]:
        """The lengths in frames to which batches of clips are padded, ascending; `max_frames` is the last."""
        return sorted({length for length in self.frame_lengths if length < self.max_frames} | {self.max_frames})


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """The labels in the records, and the targets made of them.

    Attributes:
      num_classes: C, the number of classes.
      verticals: V, the number of verticals of the vocabulary to predict besides the classes, 25 in the 2018 version; 0:
        none. A video has the verticals that its labels belong to. Evaluation and export leave them out.
      vocabulary: the dataset's vocabulary.csv, relative to `--data_dir`. Training reads it only for `verticals`;
        evaluation, export and the report take the names of classes from it, if it exists.
      max_labels: L, the most labels that a video may have, or ratings that a segment may have.
      segments: examples are rated segments of clips (`SegmentsConfig`); null: whole videos with their labels.
    """

    num_classes: int = schema.NUM_CLASSES
    verticals: int = 0
    vocabulary: str = "vocabulary.csv"
    max_labels: int = 32
    segments: SegmentsConfig | None = None

    def __post_init__(self) -> None:
        checks.positive(self, "num_classes", "max_labels")
        if self.verticals < 0:
            raise ValueError(f"data.verticals must not be negative, got {self.verticals}")


def targets_of(data: RecordsConfig) -> TargetsConfig | None:
    """Returns the labels of videos to read; None for a plain `RecordsConfig`, or if examples are segments."""
    return data if isinstance(data, TargetsConfig) and data.segments is None else None


def ratings_of(data: RecordsConfig) -> DataConfig | None:
    """Returns the ratings of segments to read in place of labels; None if examples are whole videos."""
    return data if isinstance(data, DataConfig) and data.segments is not None else None


@dataclasses.dataclass(frozen=True)
class ShardsConfig:
    """Glob patterns of the shards of each split.

    Attributes:
      train, validation, test: glob patterns of shards, relative to `--data_dir` (or absolute, or anything that
        `tf.io.gfile` opens).
    """

    train: tuple[str, ...] = ("train*.tfrecord",)
    validation: tuple[str, ...] = ("validate*.tfrecord",)
    test: tuple[str, ...] = ("test*.tfrecord",)


@dataclasses.dataclass(frozen=True)
class FoldsConfig:
    """Cross-validation folds of the training shards.

    Attributes:
      num_folds: the number of folds among which the training shards are divided; 0: train on all.
      fold: the held-out fold, from 0. It takes the place of `validation`; the others are trained on.
    """

    num_folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if self.num_folds < 0 or self.num_folds == 1:
            raise ValueError(f"data.num_folds must be 2 or more, or 0 for none, got {self.num_folds}")
        if not 0 <= self.fold < max(self.num_folds, 1):
            raise ValueError(f"data.fold must be below data.num_folds, {self.num_folds}, got {self.fold}")


@dataclasses.dataclass(frozen=True)
class OrderConfig:
    """The order of the training records, and how workers share them.

    Attributes:
      split: how several workers share the records: "shard", each reads its own shards; "record", each reads
        all shards and takes its slice of the same global batch.
      shuffle_shards: shards per group; groups are shuffled separately. Clips are read from all shards of a group at
        once.
      shuffle_records: size of the shuffle window in records, or in segments where these are the examples; null: 8192
        at video level, 256 at frame level, 2048 segments. 0 keeps the order of the records within the shards.
    """

    split: Literal["shard", "record"] = "shard"
    shuffle_shards: int = 32
    shuffle_records: int | None = None

    def __post_init__(self) -> None:
        checks.positive(self, "shuffle_shards")
        if self.shuffle_records is not None and self.shuffle_records < 0:
            raise ValueError(f"data.shuffle_records must not be negative, got {self.shuffle_records}")


@dataclasses.dataclass(frozen=True)
class DataConfig(OrderConfig, FoldsConfig, ShardsConfig, TargetsConfig, RecordsConfig):
    """The `data` section: shards, features, classes, folds and preprocessing of a run.

    Example:
      >>> import yt8m_tf
      >>> data = yt8m_tf.DataConfig(features={"clip": 512}, keys={"clip": "image/embedding"}, num_classes=10)
      >>> data.spec.features
      {'clip': 512}
    """

    def __post_init__(self) -> None:
        for part in (RecordsConfig, TargetsConfig, FoldsConfig, OrderConfig):
            part.__post_init__(self)
        if self.segments is not None:
            self._check_segments(self.segments)

    def _check_segments(self, segments: SegmentsConfig) -> None:
        if self.level != "frame":
            raise ValueError("data.segments is for clips: leave it out, or set data.level: frame")
        if self.verticals:
            raise ValueError("data.segments: ratings are of classes, not of verticals; set data.verticals: 0")
        if segments.length > self.max_frames:
            raise ValueError(
                f"data.segments: size + 2 * context is {segments.length}, more than data.max_frames:"
                f" {self.max_frames}; lower data.segments.context"
            )
        if taken := self.features.keys() & _TAKEN_BY_SEGMENTS:
            raise ValueError(
                f"data.features.{min(taken)}: batches of segments use that name for something else;"
                " rename the feature, and give its key in records in data.keys"
            )

    @property
    def records(self) -> RecordsConfig:
        """Only the features, to read records without their labels."""
        return RecordsConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(RecordsConfig)})

    @property
    def spec(self) -> InputSpec:
        """The model's input specification."""
        longest = self.frames.longest(self.max_frames)
        ranges = {
            name: feature.range
            for name, feature in self.stored.items()
            if feature.dtype == "uint8" and feature.range and feature.range != schema.CODE_RANGE
        }
        return InputSpec(self.level, self.sizes, self.num_classes, longest, self.verticals, self.frames, ranges)


def frames_of(data: DataConfig) -> DataConfig:
    """Describes the frame-level records whose means are the video-level features of `data`.

    They have each feature under its own name, as uint8 codes of YouTube-8M's range, and the id and the labels under the
    keys of `data`.
    """
    return dataclasses.replace(data, level="frame", features=data.sizes, keys=data.other_keys)


def data_of(spec: InputSpec) -> DataConfig:
    """Describes YouTube-8M's records as a model of `spec` reads them: the inverse of `DataConfig.spec`."""
    return DataConfig(
        level=spec.level,
        features={
            name: FeatureConfig(size, "uint8", tuple(spec.ranges[name])) if name in spec.ranges else size
            for name, size in spec.features.items()
        },
        num_classes=spec.num_classes,
        max_frames=spec.max_frames,
        verticals=spec.num_tags,
        frames=spec.frames,
    )
