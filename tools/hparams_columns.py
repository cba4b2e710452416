"""Sets the columns of TensorBoard's HParams tab for the runs below a directory.

There is a column for each key in which the runs differ, and one for each metric at the run's best evaluation. Without
this, the tab has a column for every key and scalar. Run it again, and restart TensorBoard, after adding runs.
tools/run_experiments.py does this itself.

  python tools/hparams_columns.py --workdir=runs/sweep && tensorboard --logdir=runs/sweep
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin.launch import launch

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory with run directories in it, at any depth.", required=True)


def main(_: Sequence[str]) -> None:
    from yt8m_tf import files
    from yt8m_tf.training.hparams import write_columns

    directory = files.local_path(_WORKDIR.value, "--workdir")
    keys = write_columns(directory)
    print(f"columns: {', '.join(keys)}\nnext: tensorboard --logdir={shlex.quote(str(directory))}")


if __name__ == "__main__":
    launch(main)
