"""A lock that is shared or held alone, between processes and threads."""

import subprocess
import sys
import threading
import time

import pytest

from limbeck.storage.shared_lock import SharedLock

HOLDER = """
import sys
from pathlib import Path
from limbeck.storage.shared_lock import SharedLock
with getattr(SharedLock(Path(sys.argv[1])), sys.argv[2])():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Start a process that holds the lock until it is told to end, or is killed."""
    started = []

    def start(kind):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / "a.lock"), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def entered(lock, kind):
    """Begin to take the lock in a thread; what it returns is set once it is held."""
    event = threading.Event()

    def take():
        with getattr(lock, kind)():
            event.set()

    threading.Thread(target=take, daemon=True).start()
    return event


def test_many_share_and_one_is_alone(tmp_path, hold):
    lock = SharedLock(tmp_path / "a.lock")
    sharer = hold("shared")
    assert entered(lock, "shared").wait(10)
    waits = []
    alone = threading.Event()

    def take():
        with lock.alone(lambda: waits.append(1)):
            alone.set()

    threading.Thread(target=take, daemon=True).start()
    assert not alone.wait(0.2)
    late = entered(lock, "shared")  # whoever waits to be alone is let in first
    assert not late.wait(0.2)
    sharer.communicate("")
    assert alone.wait(10)
    assert late.wait(10)
    assert waits == [1]


@pytest.mark.parametrize("kind", ["shared", "alone"])
def test_a_killed_process_holds_nothing(tmp_path, hold, kind):
    holder = hold(kind)
    holder.kill()
    holder.communicate()
    start = time.monotonic()
    with SharedLock(tmp_path / "a.lock").alone():
        assert time.monotonic() - start < 10
