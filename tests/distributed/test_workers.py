"""Workers: the most urgent work first, errors where they belong, what is missing supplied."""

from __future__ import annotations

import threading

import pytest
import remote_work

from limbeck.distributed.workers import Needs, Workers


class Inline:
    """Carries out work in the thread that asks for it."""

    closed = False

    def call(self, work, payload, needs, report):
        return work(payload, report)

    def close(self):
        self.closed = True


@pytest.fixture
def workers():
    pool = Workers(Inline(), 1)
    yield pool
    pool.close()


def test_what_is_most_urgent_goes_first(workers):
    begun, done, gate = threading.Event(), [], threading.Event()

    def hold(payload, report):
        begun.set()
        gate.wait(10)
        return {}

    def note(payload, report):
        done.append(payload["name"])
        return {}

    workers.submit(hold, {})
    begun.wait(10)
    urgencies = {"short": 1.0, "long": 5.0, "middle": 3.0, "second long": 5.0}
    futures = [workers.submit(note, {"name": name}, urgency=urgency) for name, urgency in urgencies.items()]
    gate.set()
    for future in futures:
        future.result(10)
    assert done == ["long", "second long", "middle", "short"]


def test_an_error_belongs_to_its_work_alone(workers):
    bad, good = workers.submit(remote_work.fail, {"value": 1}), workers.submit(remote_work.needy, {"object": 3})
    with pytest.raises(ValueError, match="cannot take 1"):
        bad.result(10)
    assert good.result(10) == {"value": 3}


def test_what_a_worker_lacks_is_sent(workers):
    taken, requested = [], []

    def supply(missing):
        requested.append(list(missing))
        return {"object": 7}

    future = workers.submit(remote_work.needy, {}, supply=supply, receive=taken.append)
    assert future.result(10) == {"value": 7}
    assert requested == [["object"]]
    assert taken == [{"value": 7}]


def test_what_one_worker_lacks_is_sent_to_the_next_one_with_what_that_lacks():
    nodes = [{"teacher"}, {"student"}, {"task"}]  # what each has, in turn

    class Cluster(Inline):
        calls = 0

        def call(self, work, payload, needs, report):
            node = nodes[self.calls % 3]
            self.calls += 1
            lacking = sorted({"student", "task", "teacher"} - node - payload.get("objects", {}).keys())
            return {"missing": lacking} if lacking else {"value": 1}

    backend = Cluster()
    workers = Workers(backend, 1)
    future = workers.submit(remote_work.needy, {}, supply=lambda missing: {"objects": dict.fromkeys(missing, b"")})
    assert future.result(10) == {"value": 1}
    assert backend.calls == 3
    stubborn = workers.submit(remote_work.needy, {}, supply=lambda missing: {})
    assert stubborn.result(10) == {"missing": ["student", "teacher"]}
    workers.close()


def test_closing_cancels_what_has_not_begun():
    backend = Inline()
    workers, begun, gate = Workers(backend, 1), threading.Event(), threading.Event()

    def hold(payload, report):
        begun.set()
        gate.wait(10)
        return {}

    running = workers.submit(hold, {}, needs=Needs("train"))
    begun.wait(10)
    waiting = workers.submit(remote_work.double, {"value": 1})
    threading.Timer(0.1, gate.set).start()
    workers.close()
    assert backend.closed
    assert running.result(10) == {}
    assert waiting.cancelled() or not waiting.done()
