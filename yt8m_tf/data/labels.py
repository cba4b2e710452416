"""Reads the ids and labels of records without their features, by the same rule in every command."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import tensorflow as tf

from yt8m_tf import schema
from yt8m_tf.config.data import TargetsConfig
from yt8m_tf.data import integrity, records
from yt8m_tf.data.record_check import Reader, check_id, check_labels, parse_record
from yt8m_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class LabelRule:
    """What the ids and labels of records must be.

    Attributes:
      num_classes: C; labels are from 0 to C - 1.
      id_keys: the keys under which a record may have its id.
      labels_key: the key of the labels.
      reader: decides the remedies that messages name.
    """

    num_classes: int
    id_keys: Sequence[str] = schema.ID_KEYS
    labels_key: str = schema.LABELS_KEY
    reader: Reader = dataclasses.field(default_factory=Reader)

    def problem(self, serialized: bytes) -> str | None:
        """Returns what is wrong with the id or the labels of a record; None if nothing is. No labels are right."""
        record = parse_record(serialized)
        if record is None:
            return f"{len(serialized)} bytes that are not a tf.train.Example or SequenceExample; give YouTube-8M shards"
        context, targets = record.context.feature, TargetsConfig(self.num_classes, max_labels=self.num_classes)
        return check_id(context, self.id_keys, self.reader) or check_labels(
            context, self.labels_key, targets, need_labels=False, reader=self.reader
        )

    def find_bad(self, shards: Iterable[str]) -> str | None:
        """Returns the first problem in shards, up to their damage: shard, record, video, value and remedy."""
        for shard in shards:
            for number, serialized in enumerate(integrity.good_records(shard)):
                # TensorFlow's parser is stricter about damaged protocol buffers.
                if problem := self.problem(serialized) or self._refusal(serialized):
                    return f"{shard}: record {number}{integrity.named(serialized, self.id_keys)}: {problem}"
        return None

    def parse(self, serialized: tf.Tensor, shards: Sequence[str]) -> tf.RaggedTensor:
        """Parses and checks labels: [B] strings -> ragged [B, (labels)] int64, each once.

        Args:
          serialized: records.
          shards: where they come from, for messages.

        Raises:
          InputError: a record's labels are not integers, or not classes.
        """
        cause = None
        try:
            labels = records.parse_labels(serialized, self.labels_key)
            values = labels.flat_values
            if not tf.reduce_any((values < 0) | (values >= self.num_classes)):
                return labels
        except records.PARSE_FAILURES as error:
            cause = error
        raise InputError(
            self.find_bad(shards) or f"{' or '.join(shards)}: labels that cannot be read; write the shards again"
        ) from cause

    def _refusal(self, serialized: bytes) -> str | None:
        try:
            records.parse_ids(tf.constant([serialized]), self.id_keys)
            records.parse_labels(tf.constant([serialized]), self.labels_key)
        except records.PARSE_FAILURES:
            return "a damaged tf.train.Example or SequenceExample; write the shard again"
        return None
