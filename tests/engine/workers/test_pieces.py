"""Pieces that steps wait for: carried out once, and told of when all are there."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from limbeck.distributed.workers import Needs
from limbeck.engine.workers.pieces import Pieces
from limbeck.errors import ProcessLost

ORDER = {"base": "0123"}


class Manual:
    """Workers whose work ends when the test says so."""

    def __init__(self, count=2):
        self.count, self.jobs = count, []

    def submit(self, work, payload, **options):
        self.jobs.append((payload["pieces"], Future()))
        return self.jobs[-1][1]

    def end(self, number, outcome=None):
        pieces, future = self.jobs[number]
        future.set_result({"results": [{"value": piece["value"]} for piece in pieces]} if outcome is None else outcome)


@pytest.fixture
def workers():
    return Manual()


@pytest.fixture
def hand_out(workers):
    """Hand out pieces of so many values; return the list that receives the results."""
    pieces = Pieces(None, workers, print)

    def hand(values, base="0123", keeps=""):
        wanted = {
            f"piece-{value}": {"value": value} | ({"keeps": f"{keeps}{value}"} if keeps else {}) for value in values
        }
        ended = []
        given = {"needs": Needs(), "urgency": 1.0, "then": ended.append, "lost": ended.append}
        pieces.hand_out({"base": base}, {"pieces": wanted, "shared": {}}, **given)
        return ended

    return hand


def test_a_step_is_told_once_all_its_pieces_are_there(workers, hand_out):
    ended = hand_out(range(7))
    assert [len(pieces) for pieces, _ in workers.jobs] == [1, 2, 2, 2]
    for number in (2, 0, 3):
        workers.end(number)
    assert ended == []
    workers.end(1)
    assert ended == [{f"piece-{value}": {"value": value} for value in range(7)}]


def test_pieces_that_keep_a_folder_are_carried_out_once_for_all_steps(workers, hand_out):
    first, second, other = hand_out([1, 2], "a", "kept"), hand_out([2, 1], "b", "kept"), hand_out([1], "c")
    assert [pieces[0]["value"] for pieces, _ in workers.jobs] == [1, 2, 1]
    workers.end(0)
    workers.end(1)
    assert first == second == [{"piece-1": {"value": 1}, "piece-2": {"value": 2}}]
    assert other == []
    assert hand_out([1], "d", "kept") == [{"piece-1": {"value": 1}}]
    assert len(workers.jobs) == 3


@pytest.mark.parametrize("outcome", [{"error": "RuntimeError", "message": "no"}, {"elsewhere": "another processor"}])
def test_a_step_does_itself_what_workers_cannot(workers, hand_out, outcome):
    ended = hand_out([1, 2])
    workers.end(0)
    workers.end(1, outcome)
    assert ended == [None]


def test_a_lost_worker_is_told_to_the_steps_concerned(workers, hand_out):
    lost, other = hand_out([1, 2], "a"), hand_out([1], "b")
    workers.jobs[1][1].set_exception(ProcessLost("gone"))
    workers.end(0)
    workers.end(2)
    assert [str(error) for error in lost] == ["gone"]
    assert other == [{"piece-1": {"value": 1}}]


def test_many_threads_end_pieces(workers, hand_out):
    ended = [hand_out(range(4), str(base)) for base in range(20)]
    threads = [threading.Thread(target=workers.end, args=(number,)) for number in range(len(workers.jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results == [{f"piece-{value}": {"value": value} for value in range(4)}] for results in ended)
