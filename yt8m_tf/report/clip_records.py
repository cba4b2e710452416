"""Reads clips in frame-level shards: their records, and the labels and ratings of a record."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence

import numpy as np

from yt8m_tf import schema
from yt8m_tf.config.data import DataConfig
from yt8m_tf.console.progress import Progress
from yt8m_tf.data import integrity, record_check
from yt8m_tf.data.faults import Faults
from yt8m_tf.data.rating_check import check_ratings
from yt8m_tf.errors import InputError
from yt8m_tf.report.clips import MOST_CLASSES, Annotations, Rating, choose
from yt8m_tf.serving.windows import Windows


def find_records(
    shards: Sequence[str],
    ids: Sequence[str] | None,
    most: int,
    flag: str,
    id_keys: Sequence[str] = schema.ID_KEYS,
    progress: bool = True,
) -> dict[str, tuple[str, bytes]]:
    """Finds clips in shards, and reads no further than the last requested one.

    Args:
      shards: paths.
      ids: the requested ids; None for the first clips.
      most: number of clips if `ids` is None.
      flag: the flag that names the shards.
      id_keys: the keys under which records may store their id.
      progress: whether to show a progress bar.

    Returns:
      The shard and the record of each clip, by id, in the order of `ids` or of the shards.

    Raises:
      InputError: a clip is missing, or a shard is damaged before it.
    """

    def found() -> Iterator[tuple[str | None, tuple[str, bytes]]]:
        with Progress(
            total=len(shards), desc="looking for videos", unit="shard", leave=False, disable=not progress
        ) as bar:
            for shard in shards:
                for serialized in integrity.good_records(shard):
                    yield record_check.video_id(serialized, id_keys), (shard, serialized)
                bar.update()

    def fail(message: str) -> InputError:
        damage = integrity.find_damage(shards)
        if not damage and not any(True for shard in shards for _ in integrity.good_records(shard)):
            message = f"{flag}: no video was read: {Faults().nothing_usable(shards)}; give other shards"
        return InputError(f"{flag}: {damage.advise('yt8m-inspect can save the good records')}" if damage else message)

    return choose(found(), ids, most, flag, fail)


def read_annotations(
    shard: str, serialized: bytes, num_classes: int | None = None, labels_key: str = schema.LABELS_KEY
) -> Annotations:
    """Reads the labels of a frame-level record, and the ratings of its segments.

    Args:
      shard: the record's shard, for messages.
      serialized: the record.
      num_classes: all class ids must be below it; None: not known.
      labels_key: the key of the labels.

    Raises:
      InputError: a label or a rating is not valid.
    """
    record = record_check.parse_record(serialized)
    assert record is not None  # it has an id
    context = record.context.feature
    most = num_classes or MOST_CLASSES
    data = DataConfig(level="frame", num_classes=most, max_labels=most)
    reader = record_check.Reader(model="the model of the scores")
    problem = record_check.check_labels(context, labels_key, data, need_labels=False, reader=reader)
    if problem := problem or check_ratings(context, data, reader):
        raise InputError(f"{shard}: record{integrity.named(serialized)}: {problem}")
    labels = list(dict.fromkeys(context[labels_key].int64_list.value))
    starts, classes = (context[key].int64_list.value for key in (schema.SEGMENT_STARTS_KEY, schema.SEGMENT_CLASSES_KEY))
    ends = context[schema.SEGMENT_ENDS_KEY].int64_list.value or [start + Windows.size for start in starts]
    of_pair = collections.defaultdict(list)
    for start, end, class_id, rating in zip(
        starts, ends, classes, context[schema.SEGMENT_SCORES_KEY].float_list.value, strict=True
    ):
        of_pair[start, end, class_id].append(rating)
    ratings = [Rating(*pair, float(np.mean(given))) for pair, given in of_pair.items()]
    return Annotations(labels, ratings)
