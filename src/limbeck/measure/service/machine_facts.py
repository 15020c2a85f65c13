"""What a machine that measures for others says of itself."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from limbeck.core.measurement import environment, machine
from limbeck.measure.service.request import MAX_GRAPHS


def machine_facts(most_bytes: int, seconds: int) -> dict[str, Any]:
    """Describe this machine, its runtimes and its limits.

    Args:
        most_bytes: Largest request.
        seconds: Longest time of a measurement.
    """
    return {
        "service": "limbeck",
        "runtimes": ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])],
        "limits": {"bytes": most_bytes, "seconds": seconds, "graphs": MAX_GRAPHS},
        "environment": environment(),
        "machine": machine(),
        "load": os.getloadavg()[0],
    }
