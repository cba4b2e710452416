"""Runs a whole solution: folds of first-level models, scores, LightGBM, students, the final network, its export.

A pipeline is a table of stages. A stage is skipped if its outputs are complete, and its inputs and configuration are
unchanged. After an interruption, the same command resumes. A stage whose configuration or data has changed starts
over only if --restart names it, and its earlier outputs move to WORKDIR/.old. --plan shows every stage with its
state, changes and costs, and runs nothing.

Example:

  yt8m-pipeline --config=pipelines/real_subset.yaml --data_dir=DATA/yt8m_2018 --workdir=runs/real_subset --plan
  yt8m-pipeline --config=pipelines/real_subset.yaml --data_dir=DATA/yt8m_2018 --workdir=runs/real_subset
  yt8m-pipeline --config=pipelines/samsung2018.yaml --data_dir=DATA/2 --workdir=runs/samsung \\
      --jobs=8 --gpus=0,1,2,3,4,5,6,7
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags

from yt8m_tf.bin.launch import launch
from yt8m_tf.bin.usage import next_command
from yt8m_tf.console.quiet import import_quietly

_CONFIG = flags.DEFINE_string("config", None, "Configuration of the pipeline: PATH.yaml[:NAME].", required=True)
_SET = flags.DEFINE_multi_string("set", [], "Override of a configuration key, such as num_folds=3; repeatable.")
_DATA_DIR = flags.DEFINE_string("data_dir", ".", "Directory to which the configuration's shard patterns are relative.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for all outputs.", required=True)
_PLAN = flags.DEFINE_bool("plan", False, "Show the stages, their states and their costs, and run nothing.")
_TERAFLOPS = flags.DEFINE_float(
    "teraflops",
    20.0,
    "For --plan: sustained speed of the device, in 1e12 operations per second; 0.3 on two CPU cores.",
    lower_bound=1e-6,
)
_RESTART = flags.DEFINE_multi_string(
    "restart",
    [],
    "Stage that may start over if it has changed, with the later stages whose inputs it changes: a name shown by"
    " --plan, or a pattern such as 'train *'; repeatable. Earlier outputs move to WORKDIR/.old.",
)
_JOBS = flags.DEFINE_integer("jobs", 1, "Stages run at once.", lower_bound=1)
_GPUS = flags.DEFINE_list(
    "gpus", [], "Ids of GPUs, assigned to jobs round-robin; the default is the GPUs that this process sees."
)
_SCHEDULER = flags.DEFINE_string("scheduler", None, "Address of a Dask scheduler whose workers run the stages.")
_XLA = flags.DEFINE_bool("xla", True, "Compile training steps and forward passes with XLA.")


def main(_: Sequence[str]) -> None:
    from yt8m_tf.pipelines.settings import load_pipeline

    settings = load_pipeline(_CONFIG.value, _SET.value)  # errors are reported before more imports

    from yt8m_tf import files
    from yt8m_tf.pipelines import plan, stages, starts
    from yt8m_tf.pipelines.stage import check_restart

    workdir, data_dir = files.local_path(_WORKDIR.value, "--workdir"), os.path.expanduser(_DATA_DIR.value)
    table = stages.make_stages(settings, stages.kept_seeds(settings, workdir))
    stages.check_outputs(table, workdir)
    check_restart(table, _RESTART.value)
    starts.check_starts(table)
    if _PLAN.value:
        print(plan.describe(table, settings, data_dir, workdir, _TERAFLOPS.value))
        return
    import_quietly()

    from yt8m_tf.pipelines import choices, content, runner, state, workers
    from yt8m_tf.pipelines.execution import Where
    from yt8m_tf.stacking import cluster

    shards = content.shards_of(table, data_dir)
    threads = max(1, (os.cpu_count() or 1) // _JOBS.value)
    # Local workers print into the logs of their stages; workers of a cluster print on their own screens.
    where = Where(data_dir, workdir, threads, _XLA.value, progress=not _SCHEDULER.value)
    with runner.only_run(workdir):
        states = state.States(workdir, table, shards)
        if _SCHEDULER.value:
            with cluster.connect(_SCHEDULER.value) as client, workers.cluster_workers(client, where) as submit:
                jobs = workers.num_cluster_workers(client)
                results = runner.run(table, states, submit, jobs, _RESTART.value)
        else:
            with workers.local_workers(_JOBS.value, where, _GPUS.value) as submit:
                results = runner.run(table, states, submit, _JOBS.value, _RESTART.value)
        runner.write_hparams(workdir)
        limit = runner.reachable_gap(data_dir)
        print(runner.write_results(results, workdir, limit, choices.choices(settings)))
    print(next_command("report", workdir=workdir, data_dir=data_dir, output="report.html"))


def run() -> None:
    """Runs the console script."""
    launch(main, framework=False)


if __name__ == "__main__":
    run()
