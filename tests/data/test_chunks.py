from __future__ import annotations

import operator
import os
import subprocess
import sys

import pytest

from limbeck.data.chunks import chunked, crew, in_order, kept_lines, read_lines, write_lines


def test_chunks_cover_all_once():
    for count in range(10):
        assert [number for part in chunked(count, 3) for number in part] == list(range(count))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(in_order(operator.neg, range(9), workers)) == [-number for number in range(9)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crew_stays_for_several_rounds(workers):
    with crew(workers) as each:
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


def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import operator\nfrom limbeck.data.chunks import in_order\nprint(*in_order(operator.neg, [1, 2], 2))\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    # not always the last line: Python may warn of semaphores that it cleaned up after the processes
    (told,) = [line for line in ended.stderr.splitlines() if line.startswith("limbeck.errors.InputError: ")]
    assert "one of 2 worker processes ended" in told
    assert 'if __name__ == "__main__":' in told


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
