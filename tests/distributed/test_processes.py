"""Worker processes: a killed one is replaced, and its work begins again."""

from __future__ import annotations

import os
import signal
import threading
import time
from queue import Queue

import psutil
import pytest
import remote_work

from limbeck.distributed.processes import ATTEMPTS, Processes
from limbeck.distributed.workers import Needs
from limbeck.errors import ProcessLost, StoreError
from limbeck.storage.parallel import WorkerProcess


@pytest.fixture(scope="module")
def processes():
    backend = Processes(1, threads=3)
    yield backend
    backend.close()


def call(backend, work, payload, report=lambda values: None):
    return backend.call(work, payload, Needs(), report)


def test_work_is_carried_out_elsewhere_and_reports(processes):
    heard = []
    result = call(processes, remote_work.double, {"value": 4}, heard.append)
    assert (result["value"], result["threads"]) == (8, "3")
    assert result["pid"] != os.getpid()
    assert heard == [{"note": "doubling 4"}]
    assert call(processes, remote_work.double, {"value": 5})["pid"] == result["pid"]


def test_an_error_comes_back(processes):
    with pytest.raises(ValueError, match="cannot take 3"):
        call(processes, remote_work.fail, {"value": 3})


def test_the_work_of_a_killed_process_begins_again(processes, tmp_path):
    heard = []
    result = call(processes, remote_work.killed_once, {"mark": str(tmp_path / "mark")}, heard.append)
    assert result == {"value": "made by another process"}
    assert heard == [{"note": f"a worker process was killed (1 of {ATTEMPTS} attempts)"}]


def test_a_process_that_is_killed_within_a_report_is_replaced(processes, tmp_path):
    heard, ended = [], Queue()

    def hear(values):
        if "pid" in values:
            time.sleep(0.2)  # until the next report fills the pipe
            os.kill(values["pid"], signal.SIGKILL)
        heard.append(values)

    def begin():
        ended.put(call(processes, remote_work.killed_over_a_report, {"mark": str(tmp_path / "mark")}, hear))

    threading.Thread(target=begin, daemon=True).start()
    assert ended.get(timeout=60) == {"value": "made by another process"}
    assert heard[1:] == [{"note": f"a worker process was killed (1 of {ATTEMPTS} attempts)"}]


def test_all_that_a_worker_reports_is_heard_before_its_result(processes):
    heard = []
    call(processes, remote_work.chatty, {"count": 3000}, heard.append)
    assert heard == [{"note": str(number)} for number in range(3000)]


def test_a_report_that_cannot_be_kept_is_an_error_of_its_work_and_blocks_nothing(processes):
    def full(values):
        raise StoreError("the ledger cannot be written")

    with pytest.raises(StoreError, match="cannot be written"):
        call(processes, remote_work.chatty, {"count": 3000}, full)


def test_work_that_is_always_killed_is_given_up(processes):
    with pytest.raises(ProcessLost, match="is there enough memory"):
        call(processes, remote_work.always_killed, {})
    assert call(processes, remote_work.double, {"value": 1})["value"] == 2


def test_a_process_that_cannot_be_started_ends_the_run(monkeypatch):
    def start(process):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(WorkerProcess, "start", start)
    backend = Processes(1)
    with pytest.raises(ProcessLost, match=r"no worker process can be started: .*temporarily unavailable"):
        call(backend, remote_work.double, {"value": 4})
    backend.close()


def test_closing_ends_what_runs():
    backend, begun, ended = Processes(1), Queue(), Queue()

    def begin():
        try:
            call(backend, remote_work.lasting, {}, begun.put)
        except ProcessLost as error:
            ended.put(str(error))

    threading.Thread(target=begin, daemon=True).start()
    worker = psutil.Process(begun.get(timeout=60)["pid"])
    backend.close()
    assert ended.get(timeout=10) == "the workers were stopped"
    finished, _ = psutil.wait_procs([worker], timeout=10)
    assert finished
