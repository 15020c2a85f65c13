"""The side of the measuring process: open every model once, time them in turns, answer the test split.

Called by ``compare.py`` through ``limbeck.measure.isolation``, so threads are set before anything is loaded.
"""

import importlib
import logging
import time
import warnings

import numpy as np
import psutil

from limbeck.measure.backends import import_runtime
from limbeck.measure.memory import forget_peak, peak, resident
from limbeck.measure.timing import alternate

from .runners import open_peer

LIBRARIES = {"torch": "transformers.modeling_utils", "static": "model2vec"}


def compare(payload):
    """Seconds of the model alone and of text to label [models, rounds, texts], and all answers [models, examples]."""
    _quiet()
    timed, test = payload["timed"], payload["test"]
    opened, failed = {}, {}
    for index, entry in enumerate(payload["entries"]):
        try:
            peer = open_peer(entry, payload["threads"])
            for row in timed:  # compiles, where something is compiled
                peer.label(row)
        except Exception as error:  # one peer that cannot run here must not end the comparison
            failed[str(index)] = f"{type(error).__name__}: {error}"[:500]
        else:
            opened[index] = peer
    alone = {index: peer for index, peer in opened.items() if peer.runner is not None}
    scopes = {
        "alone": {index: _alone(peer, timed) for index, peer in alone.items()},
        "whole": {index: _whole(peer, timed) for index, peer in opened.items()},
    }
    answer = {"failed": failed, "opened": list(opened), "alone": list(alone)}
    start = _clocks()
    for name, calls in scopes.items():
        timings = alternate(list(calls.values()), len(timed), payload["rounds"], warmup=2)
        answer[f"seconds_{name}"] = np.stack([timing.seconds for timing in timings])
    wall, everybody, own = (after - before for before, after in zip(start, _clocks(), strict=True))
    answer["others"] = (everybody - own) / wall
    answer["answers"] = np.array([[peer.label(row) for row in test] for peer in opened.values()])
    reader = next(iter(alone.values()))
    answer["tokens"] = np.array([len(reader.tokenizer.encode(*row).ids) for row in test])
    answer["timed_tokens"] = float(np.mean([len(reader.tokenizer.encode(*row).ids) for row in timed]))
    return answer


def memory(payload):
    """Bytes at the peak while one model opens and answers, beyond those of the process with the libraries imported."""
    _quiet()
    entry = payload["entry"]
    import_runtime(LIBRARIES.get(entry["kind"], entry["kind"]))
    importlib.import_module("tokenizers")
    before = resident()
    forget_peak()
    peer = open_peer(entry, payload["threads"])
    for row in payload["timed"]:
        peer.label(row)
    return {"bytes": max(peak(), resident()) - before}


def _alone(peer, rows):
    prepared = [peer.read(row) for row in rows]
    return lambda index: peer.runner(prepared[index])


def _whole(peer, rows):
    return lambda index: peer.label(rows[index])


def _clocks():
    """Seconds that have passed, that all processors were busy, and that they were for this process."""
    system, own = psutil.cpu_times(), psutil.Process().cpu_times()
    return time.perf_counter(), system.user + system.nice + system.system, own.user + own.system


def _quiet():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
