"""Worker processes and Dask workers: the distribution of stages and GPUs, and returned results."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import stage_work

from yt8m_tf.errors import InputError
from yt8m_tf.pipelines import runner, worker_process, workers
from yt8m_tf.pipelines.execution import Where
from yt8m_tf.pipelines.stage import Stage
from yt8m_tf.pipelines.state import States


def _stages(*names: str) -> list[Stage]:
    return [Stage(name, "score", (), name, {}) for name in names]


def _run(
    stages: list[Stage], workdir: Path, submit: Any, jobs: int, write_line: Any = lambda line: None
) -> dict[str, Any]:
    states = States(workdir, stages, {stage.name: () for stage in stages})
    return runner.run(stages, states, submit, jobs, write_line=write_line)


@pytest.mark.parametrize(("given", "num_threads", "expected"), [(None, 3, "3"), ("1", 3, "1"), (None, 0, None)])
def test_workers_share_the_cores(
    given: str | None, num_threads: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given or "")  # so that the test's own value is removed at its end
    if given is None:
        del os.environ["TF_NUM_INTRAOP_THREADS"]
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process must still end at Ctrl-C
    worker_process.start(os.getppid(), None, num_threads)
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == expected


def test_two_workers_keep_their_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage returns its own result, from processes that are replaced by others on the same GPU."""
    monkeypatch.setattr(workers, "_STAGES_OF_A_WORKER", 2)
    short = [f"short {number}" for number in range(5)]
    ended: list[str] = []

    def write_line(line: str) -> None:
        ended.append(line)
        if len(ended) == len(short):
            (tmp_path / stage_work.GATE).touch()

    where = Where("", tmp_path)
    with workers.local_workers(2, where, ["5", "7"], stage_work.tell_where) as submit:
        results = _run(_stages(stage_work.LONG, *short), tmp_path, submit, 2, write_line)
    assert {name: result["stage"] for name, result in results.items()} == {n: n for n in (stage_work.LONG, *short)}
    assert results[stage_work.LONG]["gpu"] == "5" and {results[name]["gpu"] for name in short} == {"7"}
    assert len({results[name]["process"] for name in short}) == 3
    assert not any(result["framework"] for result in results.values())  # no worker loads TensorFlow while it waits


def test_more_jobs_than_gpus_share_them(tmp_path: Path) -> None:
    with workers.local_workers(3, Where("", tmp_path), ["5", "7"], stage_work.tell_where) as submit:
        futures = [submit(stage) for stage in _stages("a", "b", "c")]
        assert sorted(future.result()["gpu"] for future in futures) == ["5", "5", "7"]


class Cluster:
    """The part of Dask's client that is used; `error` is the exception that ends its connection."""

    def __init__(self, where: str, error: Exception):
        self._where, self._error, self.resources = where, error, dict[str, Any]()

    def _meet(self, where: str) -> None:
        if where == self._where:
            raise self._error

    def scheduler_info(self) -> dict[str, Any]:
        self._meet("scheduler_info")
        return {"workers": {"first": {"resources": {"GPU": 1}}, "second": {"resources": {}}}}

    def submit(self, work: Any, stage: Stage, where: Where, pure: bool, resources: Any) -> Any:
        assert work is worker_process.run_claimed and not pure
        self._meet("submit")
        self.resources[stage.kind] = resources
        future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        if self._where == "result":
            future.set_exception(self._error)
        else:
            (where.workdir / stage.output).touch()
            future.set_result({"seconds": 0, "stage": stage.name})
        return future


def test_stages_on_a_cluster(tmp_path: Path) -> None:
    client = Cluster("", Exception())
    stages = [Stage("one", "score", (), "one", {}), Stage("two", "infer", ("one",), "two", {})]
    with workers.cluster_workers(client, Where("", tmp_path)) as submit:
        results = _run(stages, tmp_path, submit, workers.num_cluster_workers(client))
    assert {name: result["stage"] for name, result in results.items()} == {"one": "one", "two": "two"}
    assert client.resources == {"score": {"GPU": 1}, "infer": None}


@pytest.mark.parametrize("where", ["scheduler_info", "submit", "result"])
@pytest.mark.parametrize("error", [TimeoutError(), concurrent.futures.CancelledError("lost")])
def test_a_cluster_that_does_not_answer(where: str, error: Exception, tmp_path: Path) -> None:
    message = f"--scheduler: Dask does not answer .{type(error).__name__}"
    with (
        pytest.raises(InputError, match=message) as caught,
        runner.only_run(tmp_path),
        workers.cluster_workers(Cluster(where, error), Where("", tmp_path)) as submit,
    ):
        _run(_stages("one"), tmp_path, submit, 1)
    assert "--workdir" not in str(caught.value)


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    message = "stage 'a': its process was killed, perhaps because memory ran out"
    with (
        workers.local_workers(1, Where("", tmp_path), work=stage_work.vanish) as submit,
        pytest.raises(InputError, match=message),
    ):
        _run(_stages("a"), tmp_path, submit, 1)


def test_an_interrupted_pipeline_does_not_wait_for_stages(tmp_path: Path) -> None:
    start = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        workers.local_workers(1, Where("", tmp_path), (), stage_work.tell_where) as submit,
    ):
        future = submit(_stages(stage_work.LONG)[0])
        while not (tmp_path / f"{stage_work.LONG} begun").exists():
            assert time.monotonic() - start < stage_work.PATIENCE
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert future.done() and time.monotonic() - start < stage_work.PATIENCE / 2
    assert multiprocessing.active_children() == []


def test_an_error_without_a_message_is_named(tmp_path: Path) -> None:
    future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
    future.set_exception(concurrent.futures.CancelledError())
    with pytest.raises(InputError, match="stage 'one': CancelledError; run the same command again"):
        _run(_stages("one"), tmp_path, lambda stage: future, 1)
