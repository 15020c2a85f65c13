"""What a process knows of the others; how several meet is tested where they do (train, engine)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from limbeck.distributed import context as processes
from limbeck.distributed.context import connected
from limbeck.errors import InputError, ProcessLost, StepFailed


@pytest.fixture
def company(monkeypatch):
    """Three processes of which this is the first, with messages that a test chooses in place of connections."""
    others = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    pids = [os.getpid(), *(other.pid for other in others)]
    peers = tuple(processes.Peer(socket.gethostname(), pid, psutil.Process(pid).create_time()) for pid in pids)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(processes, "join", lambda: processes._WorldInfo(peers, None))
    monkeypatch.setattr(processes, "EXIT_TIMEOUT", 0.0)
    yield others
    for other in others:
        other.communicate(b"\n")


def hear(monkeypatch, *messages):
    """Let every gathering return our own message and these; return the messages that we sent."""
    messages_sent = []
    monkeypatch.setattr(processes, "_exchange", lambda sent, group: messages_sent.append(sent) or [sent, *messages])
    return messages_sent


def test_without_a_launcher_there_is_one(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.count(), processes.rank()) == (1, 0)
    assert processes.broadcast_from_main(lambda: 5) == 5
    with pytest.raises(InputError), processes.synchronized():
        raise InputError("no")


@pytest.mark.parametrize("names", [("WORLD_SIZE", "RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")])
def test_launchers_say_who_we_are(monkeypatch, names):
    for name, value in zip(names, "31", strict=True):
        monkeypatch.setenv(name, value)
    assert (processes.count(), processes.rank()) == (3, 1)


def test_messages_of_all(company, monkeypatch):
    sent = hear(monkeypatch, b'{"b": 2}', b"")
    assert processes.all_gather(a=1) == [{"a": 1}, {"b": 2}, {}]
    assert processes.broadcast_from_main(lambda: [1, "x"]) == [1, "x"]
    with processes.synchronized():
        pass
    assert sent == [b'{"a": 1}', b'{"value": [1, "x"]}', b""]


def test_the_others_take_what_process_0_made(company, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "_exchange", lambda sent, group: [b'{"value": 0.5}', sent, b""])
    assert processes.broadcast_from_main(lambda: pytest.fail("that is for process 0")) == 0.5
    monkeypatch.setattr(processes, "_exchange", lambda sent, group: [b"", sent, b""])
    with pytest.raises(Exception, match="out of step"):
        processes.broadcast_from_main(lambda: 0)


def test_a_failure_elsewhere_is_raised_with_its_name(company, monkeypatch):
    hear(monkeypatch, b"", b'{"error": "MemoryError: too large"}')
    with pytest.raises(StepFailed, match=rf"^process 2 of 3 \(pid {company[1].pid}\): MemoryError: too large$"):
        processes.all_gather()


def test_a_failure_here_is_told_once(company, monkeypatch):
    sent = hear(monkeypatch, b"", b"")
    with pytest.raises(ValueError, match="mine"), processes.synchronized(), processes.synchronized():
        raise ValueError("mine")
    assert sent == [b'{"error": "ValueError: mine"}']
    with pytest.raises(InputError, match="no"):
        processes.broadcast_from_main(lambda: (_ for _ in ()).throw(InputError("no")))
    assert sent[1:] == [b'{"error": "no"}']


def test_who_is_gone_is_named(company):
    def broken():
        raise RuntimeError("connection closed by peer")

    with pytest.raises(ProcessLost, match=r"the connection .* broke \(connection closed by peer\)"), connected():
        broken()
    company[1].kill()  # not waited for: a zombie, as the launcher leaves it
    os.waitid(os.P_PID, company[1].pid, os.WEXITED | os.WNOWAIT)
    named = rf"^process 2 of 3 \(pid {company[1].pid}\) is gone; the same command"
    with pytest.raises(ProcessLost, match=named), connected():
        broken()
    with pytest.raises(ProcessLost, match="process 2 of 3"):
        processes._handle_sigterm(signal.SIGTERM, None)


def test_being_handle_sigterm_while_all_are_there(company):
    with pytest.raises(SystemExit) as ended:
        processes._handle_sigterm(signal.SIGTERM, None)
    assert ended.value.code == 143


def test_importing_and_asking_loads_no_torch():
    program = "import sys; from limbeck.distributed import context; context.count(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
