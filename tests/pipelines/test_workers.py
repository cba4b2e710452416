import os
import queue

import pytest

from yt8m_tf.pipelines import worker_process


@pytest.mark.parametrize(("given", "num_threads", "expected"), [(None, 3, "3"), ("1", 3, "1"), (None, 0, None)])
def test_workers_share_the_cores(
    given: str | None, num_threads: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given or "")  # so that the test's own value goes when it ends
    if given is None:
        del os.environ["TF_NUM_INTRAOP_THREADS"]
    turns: queue.Queue[str | None] = queue.Queue()
    turns.put(None)
    worker_process.start(os.getppid(), turns, num_threads)
    assert os.environ.get("TF_NUM_INTRAOP_THREADS") == expected
    assert turns.get_nowait() is None
