"""Work for workers in other processes. Not a test."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def double(payload, report):
    report({"note": f"doubling {payload['value']}"})
    return {"value": 2 * payload["value"], "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}


def fail(payload, report):
    raise ValueError(f"cannot take {payload['value']}")


def killed_once(payload, report):
    """Be killed like a process that runs out of memory, but not again."""
    mark = Path(payload["mark"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": "made by another process"}


def killed_over_a_report(payload, report):
    """Be killed by who reads the first report, within the second one; but not again."""
    mark = Path(payload["mark"])
    if not mark.exists():
        mark.touch()
        report({"pid": os.getpid()})
        report({"note": "x" * 10**6})
    return {"value": "made by another process"}


def chatty(payload, report):
    for number in range(payload["count"]):
        report({"note": f"{number}"})
    return {}


def killed_once_over(payload, report):
    """Be killed over pieces of a step, but not again."""
    from limbeck.engine.workers.piece_orders import work_on

    killed_once(payload, report)
    return work_on(payload["payload"], report)


def always_killed(payload, report):
    os.kill(os.getpid(), signal.SIGKILL)


def lasting(payload, report):
    report({"pid": os.getpid()})
    time.sleep(60)
    return {}


def needy(payload, report):
    return {"value": payload["object"]} if "object" in payload else {"missing": ["object"]}
