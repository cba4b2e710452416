"""The flags of yt8m-stack --sizes, and the measurement that they ask for."""

from __future__ import annotations

from pathlib import Path

from absl import flags

SIZES = flags.DEFINE_bool(
    "sizes",
    False,
    "Also measure ensembles of 1, 2, 4, ... of the models, best first, worst first and in random order, and the best"
    " with all weak ones. If only --output is given, the models of that stacking are measured, such as a pipeline's.",
)
_SET = flags.DEFINE_multi_string(
    "sizes_set",
    [],
    "With --sizes: override of the stacking's configuration for the boosters of the ensembles, such as"
    " learning_rate=0.1; repeatable.",
)
_WEAK = flags.DEFINE_integer(
    "sizes_weak", None, "With --sizes: number of weakest models that count as weak; the default is half of the models."
)
_RANDOM = flags.DEFINE_integer("sizes_random", 1, "With --sizes: number of random orders.", lower_bound=0)


def measure(output: Path, num_threads: int) -> str:
    """Measures the ensembles of a finished stacking, and returns the text to print.

    Raises:
      InputError: see `finished.read_stacking` and `sizes.ensemble_sizes`.
    """
    from yt8m_tf.stacking import finished, sizes, sizes_report

    stacking = finished.read_stacking(output, "--output")
    contents = sizes.ensemble_sizes(
        stacking, _SET.value, num_weak=_WEAK.value, random_orders=_RANDOM.value, num_threads=num_threads
    )
    written = [output / sizes.SIZES, *sizes_report.write_sizes(contents, output)]
    return f"{sizes_report.format_table(contents)}\nwritten: {', '.join(map(str, written))}"
