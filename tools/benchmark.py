"""Measures this software against simple implementations of the same work, and against the limits of the machine.

  read      records/s of both levels, against parsing one record at a time and against raw reading; memory
  train     examples/s of a training step, against Keras fit and against matrix products; from shards, against memory;
            with --against=torch, three models against PyTorch in the environment of --torch_python
  evaluate  videos/s of the metrics, against a heap in Python; memory
  infer     videos/s from shards to a submission file, against the forward pass alone
  score     videos/s from shards to score shards, against the forward pass alone
  models    examples/s of a training step of every model, against matrix products; peak memory
  export    the final network in each precision: bytes, memory, seconds; videos/s against float32
  trees     videos/s of boosted trees as tensors, against LightGBM's own prediction
  stack     videos/s of feature rows for LightGBM, against the published code's way; memory at 1, 2 and 4 times the
            videos

All implementations run alternately in one process. Tables show medians, and ratios with their targets. Tables go to
standard output, and all single figures to a JSON file. The benchmark writes shards of 0.3 GB to the directory for
temporary files, unless --data_dir names video-level ones. No other programs should be busy during a run. `models` takes
half an hour on two cores; it can be run in parts with --match, whose figures are merged in the JSON file.

  python tools/benchmark.py read --data_dir=~/data/yt8m/2/video --markdown
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence

from absl import app, flags

from yt8m_tf import files
from yt8m_tf.bin import usage
from yt8m_tf.config import checks
from yt8m_tf.console.quiet import import_quietly
from yt8m_tf.errors import InputError

_COMMANDS = ("read", "train", "evaluate", "infer", "score", "models", "stack", "trees", "export")

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Directory of video-level shards, *.tfrecord; by default, random ones are made."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write; benchmark_<command>.json by default.")
_REPETITIONS = flags.DEFINE_integer("repetitions", 5, "Timed runs of every implementation.", lower_bound=1)
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print Markdown, for docs/BENCHMARKS.md.")
_MATCH = flags.DEFINE_string("match", "", "models, train --against=torch: a regular expression; only matching models.")
_AGAINST = flags.DEFINE_enum("against", "keras", ["keras", "torch"], "train: what to compare training steps with.")
_TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "The interpreter of an environment with torch; only --against=torch runs it."
)
_QUICK = flags.DEFINE_bool("quick", False, "Smoke test: tiny inputs, whose figures mean nothing.")


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, or 2 for arguments that cannot be used."""
    try:
        _run(argv[1:])
    except InputError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"'{error.filename}': {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    return 0


def _run(arguments: Sequence[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        given = f"'{' '.join(arguments)}'" if arguments else "none"
        raise InputError(f"give one of {', '.join(_COMMANDS)}; got {given}")
    name = arguments[0]
    if empty := usage.empty_flag("benchmark", __doc__ or "", __name__):
        raise InputError(empty)
    checks.regular_expression("match", _MATCH.value)
    output = files.local_path(f"benchmark_{name}.json" if _OUTPUT.value is None else _OUTPUT.value, "--output")
    if not os.access(output.parent, os.W_OK) or output.is_dir():
        raise InputError(f"--output={output}: cannot be written; name a file in a writable directory")
    import_quietly()
    import importlib

    from benchmarks import report
    from benchmarks.harness import Options

    data_dir = os.path.expanduser(_DATA_DIR.value) if _DATA_DIR.value else None
    module = importlib.import_module(f"benchmarks.{name}")
    with tempfile.TemporaryDirectory(prefix="yt8m_benchmark_") as directory:
        earlier = report.read_models(output) if name == "models" else []
        torch = _TORCH_PYTHON.value if _AGAINST.value == "torch" else None
        options = Options(directory, data_dir, _REPETITIONS.value, _QUICK.value, _MATCH.value, earlier, torch)
        result = module.run(options)
    print(report.render(name, result, _MARKDOWN.value))
    if _QUICK.value:
        print("\n--quick: these figures mean nothing")
    report.write_json(output, name, result, _QUICK.value)
    print(f"\nwrote {output}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"benchmark: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(main)
