"""What a measuring node of a Ray cluster does: the same as the measuring service, for tasks instead of requests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from limbeck.core.paths import default_root
from limbeck.errors import InputError, LimbeckError
from limbeck.measure.service.machine_facts import machine_facts
from limbeck.measure.service.options import ServiceOptions
from limbeck.measure.service.request import parse
from limbeck.measure.service.timing_session import measure
from limbeck.storage.drafts import temporary_folder
from limbeck.storage.machine_lock import MachineLock

MAX_BYTES = 2_000_000_000
"""Graphs of a session together: they pass through the memory of Ray's object store."""


def health() -> dict[str, Any]:
    """Describe the machine and the limits."""
    return machine_facts(MAX_BYTES, ServiceOptions.max_seconds)


def measured(text: str, graphs: Sequence[bytes]) -> dict[str, Any]:
    """Time graphs alone on this machine; work in the store of this node waits, as for a local measurement.

    Args:
        text: The request, as JSON.
        graphs: Content of the ONNX files.

    Returns:
        The answer of a measuring service, or why it is ``refused``.
    """
    lock = MachineLock(default_root() / "locks", lambda message: print(message, file=sys.stderr))  # noqa: T201 Ray's log
    with temporary_folder() as folder:
        paths = [folder / f"{index}.onnx" for index in range(len(graphs))]
        for path, content in zip(paths, graphs, strict=True):
            path.write_bytes(content)
        try:
            return measure(parse(text), paths, lock.alone, float(ServiceOptions.max_seconds)).to_json()
        except InputError as error:
            return {"refused": str(error)}
        except LimbeckError as error:  # the child process took too long or was killed
            return {"refused": f"the measurement failed: {str(error).splitlines()[0].rstrip(':')}"}
