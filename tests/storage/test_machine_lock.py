"""Work shares a machine, and a measurement has it alone."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from limbeck.storage.machine_lock import MachineLock


@pytest.fixture
def lock(tmp_path):
    return MachineLock(tmp_path, lambda message: None)


def in_thread(context):
    """Enter a context in another thread; the events tell that it was entered, and let it end."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with context:
            entered.set()
            leave.wait(20)

    threading.Thread(target=hold, daemon=True).start()
    return entered, leave


def test_work_is_shared_and_a_measurement_waits_for_it(lock):
    with lock.working(), lock.working():
        other, leave = in_thread(lock.working())
        assert other.wait(10)
        leave.set()
        alone, _ = in_thread(lock.alone())
        assert not alone.wait(0.1)
    assert alone.wait(10)


def test_who_works_may_measure(lock):
    with lock.working():
        with lock.alone():
            other, _ = in_thread(lock.working())
            assert not other.wait(0.1)
        assert other.wait(10)


def test_who_rests_lets_others_measure(lock):
    with lock.working():
        with lock.resting():
            alone, leave = in_thread(lock.alone())
            assert alone.wait(10)
            leave.set()
        again, _ = in_thread(lock.alone())
        assert not again.wait(0.1)


def test_two_that_work_may_both_measure(lock):
    """Neither waits for the other's work."""
    gate, done = threading.Barrier(2), []

    def work():
        with lock.working():
            gate.wait(10)
            with lock.alone():
                done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert done == [1, 1]


def test_an_interrupted_wait_after_a_rest_is_an_interruption(lock, monkeypatch):
    shared, uses = lock._lock.shared, []
    lock.used = uses.append

    def interrupted(waiting):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lock.working(), lock.resting():
        monkeypatch.setattr(lock._lock, "shared", interrupted)
    assert [use.kind for use in uses] == ["work"]
    monkeypatch.setattr(lock._lock, "shared", shared)
    with lock.working():
        other, leave = in_thread(lock.working())
        assert other.wait(10)
        leave.set()
    with lock.alone():
        pass


def test_every_use_is_told_without_the_rests(lock):
    uses = []
    lock.used = uses.append
    with lock.working(), lock.working(), lock.alone():
        pass
    assert [use.kind for use in uses] == ["work", "measure", "work"]
    assert all(before.ended <= after.began for before, after in pairwise(uses))
    assert len({(use.host, use.process) for use in uses}) == 1


def test_a_wait_is_announced(tmp_path):
    messages = []
    lock = MachineLock(tmp_path, messages.append)
    with lock.working():
        alone, _ = in_thread(lock.alone())
        assert not alone.wait(0.1)
    assert alone.wait(10)
    assert messages == ["waiting until nothing else works on this machine"]
