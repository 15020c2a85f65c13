"""A stand-in for the workers of a run, and what a run says. Not a test."""

from __future__ import annotations

import random
import threading
import time

from limbeck.errors import ProcessLost


class Threads:
    """Carries out orders in this process, each after a random wait; counts them, and those of pieces."""

    def __init__(self, seed=0, lost=lambda payload: False):
        self.rng, self.lost = random.Random(seed), lost
        self.done, self.jobs, self.lock = [], [], threading.Lock()

    def call(self, work, payload, needs, report):
        with self.lock:
            if "pieces" in payload:
                self.jobs.append(payload)
            else:
                self.done.append((payload.get("path"), payload.get("key")))
            wait = self.rng.random() / 50
        time.sleep(wait)
        if self.lost(payload):
            raise ProcessLost("the worker is gone")
        return work(payload, report)

    def close(self):
        pass


def outcome(result):
    """All that a run says, but times."""
    records = {
        key: (record.parent, record.step, record.shape, record.traits, {fact.name for fact in record.facts})
        for key, record in result.records.items()
    }
    failures = sorted((failure.path, failure.key, failure.error) for failure in result.failed)
    return (result.front, list(result.chosen), result.teacher, result.replicas, records, failures)
