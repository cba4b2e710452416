"""The boosters of all folds, each saved as soon as it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from yt8m_tf.console.progress import Progress
from yt8m_tf.stacking import boosting
from yt8m_tf.stacking.boosting import OnTree
from yt8m_tf.stacking.settings import StackConfig

# Trains the booster of a fold. Arguments: files of the other folds' rows, files of its own rows, names of the features,
# a callback for each tree, and the boosters of the folds before it.
TrainFold = Callable[
    [Sequence[Path], Sequence[Path], Sequence[str], OnTree, Sequence[boosting.Trained]], boosting.Trained
]


@dataclasses.dataclass(frozen=True)
class Bar:
    """The progress bar of a fold: its title, with {} for the fold; whether it stays at the end; whether it is shown."""

    title: str = "fold {}"
    leave: bool = False
    shown: bool = True


def train_folds(
    directory: Path,
    paths: Sequence[Path],
    folds: Mapping[str, int],
    names: Sequence[str],
    config: StackConfig,
    num_threads: int,
    train_fold: TrainFold | None,
    bar: Bar,
) -> list[boosting.Trained]:
    """Returns the boosters of folds 0, 1, ...; existing ones are read instead of trained.

    Args:
      directory: directory of the boosters, `fold_<f>.txt`.
      paths: files of rows, named after their shards.
      folds: the fold of each shard.
      names: names of the feature columns.
      config: options of the trees.
      num_threads: threads of LightGBM; 0: all cores.
      train_fold: trains a fold; None: `boosting.train`.
      bar: the progress bar.
    """
    directory.mkdir(exist_ok=True)
    found: list[boosting.Trained] = []
    for fold in sorted(set(folds.values())):
        path = directory / f"fold_{fold}.txt"
        if not path.is_file():
            held_out = [rows for rows in paths if folds[rows.stem] == fold]
            others = [rows for rows in paths if folds[rows.stem] != fold]
            title = bar.title.format(fold)
            with Progress(
                total=config.num_trees, desc=title, unit=" trees", disable=not bar.shown, leave=bar.leave
            ) as own:

                def on_tree(count: int, loss: float, own: Progress = own) -> None:
                    own.set_postfix_str(f"loss {loss:.5f}", refresh=False)
                    own.update(count - own.n)

                if train_fold is None:
                    trained = boosting.train(others, held_out, names, config, num_threads, on_tree)
                else:
                    trained = train_fold(others, held_out, names, on_tree, found)
                if own.n < config.num_trees:
                    own.total = own.n  # fills the bar, because training has ended
                    own.set_postfix_str(f"stopped early at {own.n:,}, the best was {trained.num_trees:,}")
            boosting.save(path, trained)
        found.append(boosting.load(path))
    return found
