"""Time graphs that were checked: in a fresh process, alternately, by the code of the latency probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.measurement import environment
from limbeck.errors import InputError
from limbeck.measure.backends import OnnxRunner, OpenVinoRunner, Runner, check_runtime
from limbeck.measure.isolation import run_isolated
from limbeck.measure.machine_state import Conditions
from limbeck.measure.service.request import TimingAnswer, TimingRequest
from limbeck.measure.timed_session import time_runners


def measure(
    request: TimingRequest,
    graphs: Sequence[Path],
    alone: Callable[[], AbstractContextManager[None]],
    seconds: float,
) -> TimingAnswer:
    """Check graphs and time them, alone on the machine.

    Args:
        request: What they are called with, and how often.
        graphs: Their files.
        alone: Waits until nothing else works on the machine, and keeps others out.
        seconds: The longest time that the check, and the session, may take.

    Raises:
        LimbeckError: A graph is refused, cannot be run, or takes too long.
    """
    if len(graphs) != len(request.inputs):
        raise InputError(f"inputs: are for {len(request.inputs)} graphs, and {len(graphs)} graphs came")
    check_runtime(request.runtime)
    plain = request.to_json()
    files = [str(path) for path in graphs]
    with alone():
        payload = {"files": files, "largest_ids": request.largest_ids}
        _accepted(run_isolated("limbeck.measure.service.graph_check:session", payload, timeout=seconds))
        name = "limbeck.measure.service.timing_session:session"
        answer = _accepted(run_isolated(name, plain | {"files": files}, request.threads, timeout=seconds))
    conditions = Conditions.from_json(answer["conditions"])
    return TimingAnswer(np.asarray(answer["seconds"]), answer["mean_tokens"], environment(), conditions)


def _accepted(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a child process; a problem that it found is an error here."""
    if problem := answer.get("problem"):
        raise InputError(problem)
    return answer


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Open the graphs in the child process and time them alternately.

    Args:
        payload: A request as plain data, with the ``files`` of the graphs.

    Returns:
        What :func:`limbeck.measure.timed_session.time_runners` returns, or a ``problem``.
    """
    try:
        runners = [_opened(Path(file), payload["runtime"], payload["threads"]) for file in payload["files"]]
        calls = [[[batch] for batch in batches] for batches in payload["inputs"]]
        return time_runners(runners, {**payload, "inputs": calls})
    except Exception as error:  # each runtime has errors of its own for what it cannot open or run
        text = str(error).strip().replace(str(Path(payload["files"][0]).parent), "")
        first = (text.splitlines() or [type(error).__name__])[0]
        return {"problem": f"{payload['runtime']} cannot run these graphs on these inputs: {first[:300]}"}


def _opened(file: Path, runtime: str, threads: int) -> Runner:
    from limbeck.model.onnx.onnx_model import open_session

    return OpenVinoRunner(file, threads) if runtime == "openvino" else OnnxRunner(open_session(file, threads), "")
