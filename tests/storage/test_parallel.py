from __future__ import annotations

import operator
import os
import subprocess
import sys

import psutil
import pytest

from limbeck.errors import InputError
from limbeck.storage.parallel import chunked, in_order, kept_lines, read_lines, without_main, worker_pool, write_lines


def test_chunks_cover_all_once():
    for count in range(10):
        assert [number for part in chunked(count, 3) for number in part] == list(range(count))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(in_order(operator.neg, range(9), workers)) == [-number for number in range(9)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_serves_several_rounds(workers):
    with worker_pool(workers) as each:
        seen = [set(each(operator.call, [os.getpid] * 8)) for _ in range(2)]
    assert len(seen[0] | seen[1]) <= workers


def test_jobs_are_taken_as_they_are_needed():
    taken = []

    def jobs():
        for number in range(9):
            taken.append(number)
            yield number

    assert next(in_order(operator.neg, jobs())) == 0
    assert taken == [0]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_job_ends_the_work(workers):
    with pytest.raises(TypeError):
        list(in_order(operator.neg, [1, "x", 2], workers))


SCRIPT = "import operator\nfrom limbeck.storage.parallel import in_order\nprint(*in_order(operator.neg, [1, 2], 2))\n"


@pytest.mark.parametrize("started_as", ["file", "module", "command", "input"])
def test_a_script_needs_no_main_guard(tmp_path, started_as):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = {"file": [str(script)], "module": ["-m", "script"], "command": ["-c", SCRIPT], "input": ["-"]}
    ended = subprocess.run(
        [sys.executable, *arguments[started_as]],
        cwd=tmp_path,
        input=SCRIPT if started_as == "input" else "",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.stdout, ended.returncode) == ("-1 -2\n", 0), ended.stderr


def test_the_main_module_is_as_before():
    main = sys.modules["__main__"]
    before = dict(main.__dict__)
    with without_main():
        assert main.__spec__ is None
        assert not hasattr(main, "__file__")
    assert main.__dict__ == before


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = (
        "import operator, os, signal\nfrom limbeck.storage.parallel import worker_pool\n"
        "with worker_pool(2) as each:\n    print(*each(operator.call, [os.getpid] * 4), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    workers = {int(number) for number in ended.stdout.split()}
    assert workers
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_worker_that_dies_is_reported():
    with pytest.raises(InputError, match="one of 2 worker processes ended"):
        list(in_order(os._exit, [1, 2], 2))


def test_lines_are_built_once(tmp_path):
    path, values = tmp_path / "part.jsonl", [{"text": "ünï\u2028"}, [1, None], "x"]
    assert kept_lines(path, lambda: values) == values
    assert kept_lines(path, lambda: pytest.fail("built again")) == values
    assert read_lines(path) == values


def test_an_interrupted_file_is_not_there(tmp_path):
    def dies():
        yield 1
        raise KeyboardInterrupt

    path = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_lines(path, dies())
    assert not path.exists()
    write_lines(path, [2])
    assert read_lines(path) == [2]
