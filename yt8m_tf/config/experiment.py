"""The configuration of a training run: all settings that change its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from yt8m_tf.config import checks, configurations, strict_yaml
from yt8m_tf.config.data import DataConfig


@dataclasses.dataclass(frozen=True)
class LabelsConfig:
    """Soft labels: the target of a class is `weight * soft + (1 - weight) * hard`.

    Soft labels are stored (`soft`) or computed by a teacher in the training step (`teacher`, `teacher_folds`). The
    latter is "function matching" of Beyer et al., "Knowledge distillation: a good teacher is patient and consistent",
    https://arxiv.org/abs/2106.05237.

    Attributes:
      soft: directory of score shards with `scores.json`, relative to `--data_dir`; null: none.
      teacher: run directory (also of a weighted mean) or a SavedModel that yt8m-export wrote, relative to `--data_dir`,
        or "pretrained", the model in the package; null: none. Its best weights score the student's input, after mixup.
        A teacher has partly memorised the labels of its training videos, so its scores for them add little. Train with
        a large `train.mixup_alpha` (1.0), which gives inputs that are new to both. A run that was trained on the
        validation data of this run is refused.
      teacher_folds: out-of-fold teachers: a pattern for the runs of all folds (`data.num_folds`), such as
        `runs/moe/fold_*`, relative to `--data_dir`; null: none. The teacher of a video is the run that held out the
        fold of its shard, or the mean of several such runs. A mixup of two videos has the teachers of both, weighted
        like the videos. Every run scores every batch. No run may have been trained on the validation data of this run:
        leave `data.num_folds` at 0.
      weight: weight of the soft labels, in (0, 1].
      unlisted_classes: target of classes that a video's soft labels do not list: "zero", the soft label 0 with the same
        weight, as in the original; or "hard", only the hard label. Rare classes are in few lists, so with few videos
        "zero" makes the model unlearn them.
      missing_videos: videos without soft labels are an "error", or are trained on their "hard" labels.
    """

    # Keys that contain paths, which are not part of the identity of runs and exports.
    PLACES: ClassVar[tuple[str, ...]] = ("soft", "teacher", "teacher_folds")

    soft: str | None = None
    teacher: str | None = None
    teacher_folds: str | None = None
    weight: float = 1.0
    unlisted_classes: Literal["zero", "hard"] = "zero"
    missing_videos: Literal["error", "hard"] = "error"

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(f"labels.weight must lie in (0, 1], got {self.weight}")
        given = [f"labels.{name}" for name in self.PLACES if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are two sources of one target: set one of them to null")

    @property
    def source(self) -> str | None:
        """The source of soft targets, whichever of `PLACES` is given; None if all labels are from the records."""
        return next((value for name in self.PLACES if (value := getattr(self, name)) is not None), None)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss; options that `name` does not use have no effect.

    For segments (`data.segments`), only rated outputs count: means over outputs become sums over an example's rated
    outputs, and rankings compare only rated outputs.

    All losses that rank, except `soft_ranking_per_example`, compare scores within a whole batch; with several replicas
    or accumulation, within each part of it.

    Attributes:
      name: "bce", the mean binary cross-entropy; "mse", the mean squared error of the scores; "soft_ranking", mean
        softplus(n - p + 1) over pairs of a positive p and one of the highest negatives n of the batch;
        "soft_ranking_per_example", the same within examples; "sigmoid_ranking", mean log(1 + sigmoid(n - p));
        "hinge_ranking", mean max(0, 1 + n - p); "lsep", log(1 + mean exp(n - p)); "rank_weighted_bce", weighted by the
        number of misranked outputs; "bce_plus_soft_ranking"; "bce_plus_poisson", with the likelihood of the number of
        labels; "bce_labels_tags", with a weight for classes and one for tags (the
        verticals, `data.verticals`).
      positive_above: for all losses that rank: an output is positive if its target is above this (`losses.positives`);
        targets are fractions with mixup or soft labels. 0 takes every target above 0, as in the original.
      negatives: number of negatives per example in ranking losses: the highest `negatives * B` of a batch of B.
      ranking_weight: weight of the ranking in bce_plus_soft_ranking.
      poisson_weight: weight of the likelihood in bce_plus_poisson.
      label_weight, tag_weight: weights of the mean over classes and of the mean over tags in bce_labels_tags.
      separate_means: for bce_labels_tags; false takes one mean of the weighted terms over classes and tags, as in runs
        from before this key existed.
    """

    name: Literal[
        "bce",
        "mse",
        "soft_ranking",
        "soft_ranking_per_example",
        "sigmoid_ranking",
        "hinge_ranking",
        "lsep",
        "rank_weighted_bce",
        "bce_plus_soft_ranking",
        "bce_plus_poisson",
        "bce_labels_tags",
    ] = "bce"
    positive_above: float = 0.5
    negatives: int = 30
    ranking_weight: float = 0.1
    poisson_weight: float = 1e-4
    label_weight: float = 1.0
    tag_weight: float = 2.0
    separate_means: bool = True

    def __post_init__(self) -> None:
        checks.positive(self, "negatives", "ranking_weight", "poisson_weight", "label_weight", "tag_weight")
        checks.rates(self, "positive_above")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; options that `name` does not use have no effect.

    Attributes:
      name: "adam", "adamw" or "rmsprop".
      learning_rate: the highest learning rate; `schedule` scales it.
      beta_1, beta_2: decay of Adam's moving averages of gradients and of their squares, in [0, 1).
      rho: decay of RMSprop's moving average of squared gradients, in [0, 1). 0.99 is PyTorch's default, as in the
        original.
      epsilon: added to the root of the mean square. 1e-8 is PyTorch's default, as in the original. Keras's default
        is 1e-7, which is more than most of these roots in an output layer of thousands of classes.
      weight_decay: decoupled weight decay of AdamW, not applied to biases and batch normalisation (variables of rank
        below 2).
      clip_norm: the highest global norm of the gradient, after averaging over replicas; null: no limit.
    """

    name: Literal["adam", "adamw", "rmsprop"] = "adam"
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    rho: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float | None = 10.0

    def __post_init__(self) -> None:
        checks.positive(self, "learning_rate", "epsilon", "clip_norm")
        if wrong := [name for name in ("beta_1", "beta_2", "rho") if not 0 <= getattr(self, name) < 1]:
            raise ValueError(f"{wrong[0]} must lie in [0, 1), got {getattr(self, wrong[0])}")

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The names of the running averages of each variable: m of the gradient, v of its square."""
        return ("v",) if self.name == "rmsprop" else ("m", "v")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time, as a multiple of `optimizer.learning_rate`.

    Attributes:
      name: "constant"; "plateau": multiplied by `factor` whenever GAP stops improving; "cosine": falls to zero at the
        last update.
      warmup_steps: updates over which the rate rises linearly from zero; 0: none.
      factor: factor of "plateau", in (0, 1).
      patience: with "plateau", the number of consecutive evaluations without improvement that are tolerated.
      threshold: with "plateau", the smallest relative improvement of 1 - GAP that counts.
    """

    name: Literal["constant", "plateau", "cosine"] = "plateau"
    warmup_steps: int = 0
    factor: float = 0.5
    patience: int = 1
    threshold: float = 1e-4


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop.

    Attributes:
      batch_size: examples per update, over all replicas and all accumulated parts.
      accumulation: number of parts of a batch that are processed one after the other, if it does not fit into memory.
      steps_per_epoch: updates between two evaluations.
      epochs: number of evaluations; the run ends after `epochs * steps_per_epoch` updates. An epoch is not a pass over
        the data.
      validation_examples: evaluate on this number of validation examples, the first ones; null: on all.
      early_stopping_patience: stop if GAP (MAP for segments) has not improved in more than this number of evaluations;
        null: never.
      mixup_alpha: alpha of mixup's Beta(alpha, alpha); 0 turns mixup off.
      feature_noise: standard deviation of normal noise that is added to every value of the decoded features, which
        lie between -2 and 2 in YouTube-8M. It is added after mixup, the same for student and teacher. 0: none.
      feature_dropout: the share of the decoded features' values that is set to 0, in [0, 1); the others are scaled up.
        0: none.
      prior_bias: initial output bias: "class", the log-odds of each class, counted on the first `prior_examples`
        training examples; "uniform", the log-odds for 3 labels a video; "none", zero.
      prior_examples: see `prior_bias`.
      target_reweighting: the targets of class c are multiplied by (p_min / p_c) ** target_reweighting, where p_c is
        the class's share of videos, counted as for `prior_bias`, and p_min the smallest share: frequent classes count
        less. 0 turns it off. It was reported to lower GAP@20, and is included for comparison.
      ema_decay: decay of an exponential moving average of the weights, used for evaluation and export; null: none.
      precision: Keras's dtype policy: float32, mixed_bfloat16, mixed_float16 (with dynamic loss scaling).
      sync_batch_norm: batch normalisation over the batch of all replicas, instead of each replica's part; turns XLA off
        with several replicas.
      seed: seed of the initial weights, the order of the data, and all randomness in a step.
    """

    batch_size: int = 256
    accumulation: int = 1
    steps_per_epoch: int = 1000
    epochs: int = 10
    validation_examples: int | None = None
    early_stopping_patience: int | None = None
    mixup_alpha: float = 0.0
    feature_noise: float = 0.0
    feature_dropout: float = 0.0
    prior_bias: Literal["class", "uniform", "none"] = "class"
    prior_examples: int = 20_000
    target_reweighting: float = 0.0
    ema_decay: float | None = None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    sync_batch_norm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        checks.positive(self, "batch_size", "accumulation", "steps_per_epoch", "epochs", "prior_examples")
        checks.positive(self, "validation_examples")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"train.batch_size {self.batch_size} is not a multiple of train.accumulation {self.accumulation}"
            )
        for name in ("mixup_alpha", "feature_noise", "target_reweighting"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(f"train.feature_dropout must lie in [0, 1), got {self.feature_dropout}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"train.ema_decay must lie between 0 and 1, got {self.ema_decay}")

    @property
    def total_steps(self) -> int:
        """The number of updates of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """The configuration of a training run.

    Attributes:
      model: `{name: ..., **options}`; each model has its own options.
    """

    model: Mapping[str, Any]
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    labels: LabelsConfig = dataclasses.field(default_factory=LabelsConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.loss.name == "bce_labels_tags" and not self.data.verticals:
            raise ValueError("loss.name bce_labels_tags weighs tags, and data.verticals is 0; set it, or use bce")
        if self.data.segments is not None:
            for name in LabelsConfig.PLACES:
                if getattr(self.labels, name) is not None:
                    raise ValueError(
                        f"labels.{name} are of whole videos, and data.segments trains on ratings: leave out one"
                    )
            if self.train.mixup_alpha:
                raise ValueError(
                    "train.mixup_alpha: hardly any class is rated in both of two mixed segments; set it to 0 with"
                    " data.segments"
                )


def load_values(selector: str, overrides: Sequence[str] = ()) -> Mapping[str, Any]:
    """Reads `PATH.yaml[:NAME]`, applies `--set` overrides, and checks all values except the model's options.

    The model's options are checked by `models.registry`, which imports Keras and takes seconds.

    Returns:
      Plain values, for `models.registry.parse_experiment`.

    Raises:
      InputError: see `configurations.load_yaml`, `strict_yaml.apply_overrides` and `strict_yaml.parse`.
    """
    values = strict_yaml.apply_overrides(ExperimentConfig, configurations.load_yaml(selector), overrides)
    strict_yaml.parse(ExperimentConfig, values, "")
    return values
