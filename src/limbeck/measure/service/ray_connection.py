"""Measure on a node of a Ray cluster: the one that has a resource, of which every session takes one.

The node is a member of the cluster that the run is connected to; ``RAY_ADDRESS`` names it where the run is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.errors import InputError, MissingExtra, ServiceError, nearest
from limbeck.measure.service.options import ServiceOptions

TIMEOUTS = 10 * 2
"""How many of the longest measurements a task waits for: others wait for the resource, too."""


class RayConnection:
    """Tasks on the node that has a resource."""

    def __init__(self, resource: str) -> None:
        """Name the resource; nothing is sent yet.

        Args:
            resource: Its name.
        """
        self.resource = resource

    def health(self) -> dict[str, Any]:
        """Return what the node says of its machine and its limits, when sessions that have the resource have ended.

        It waits for them like a session, since a process that starts beside a measurement would disturb it.
        """
        return self._call("limbeck.measure.service.ray_node:health", (), TIMEOUTS * float(ServiceOptions.max_seconds))

    def measure(self, text: str, graphs: Sequence[Path], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Have a session carried out there, when others that wait for the resource have ended.

        Args:
            text: The request, as JSON.
            graphs: The ONNX files.
            facts: What :meth:`health` returned.
        """
        timeout = TIMEOUTS * float(facts["limits"]["seconds"])
        content = [path.read_bytes() for path in graphs]
        answer = self._call("limbeck.measure.service.ray_node:measured", (text, content), timeout)
        if "refused" in answer:
            raise InputError(f"the measuring node with '{self.resource}' refuses this: {answer['refused']}")
        return answer

    def _call(self, function: str, arguments: tuple[Any, ...], seconds: float) -> dict[str, Any]:
        """Carry out a function of this package on the node; Any: its arguments are its own."""
        from limbeck.distributed.ray_cluster import carry_out_named, connect

        try:
            ray = connect("auto")
        except MissingExtra:
            raise
        except InputError as error:
            raise ServiceError(
                f"target.url: this process is in no Ray cluster; set RAY_ADDRESS to its address ({error})"
            ) from None
        resources = ray.cluster_resources()
        if resources.get(self.resource, 0) < 1:
            named = [name for name in resources if ":" not in name]
            raise ServiceError(
                f"target.url: no node of the Ray cluster has the resource '{self.resource}'; "
                f"{nearest(self.resource, named)}, or start one: ray start --address HOST:PORT --num-cpus 0 "
                f"--resources '{{\"{self.resource}\": 1}}'"
            )
        remote = ray.remote(max_retries=3, num_cpus=0, resources={self.resource: 1})(carry_out_named)
        task = remote.remote(function, *arguments)
        try:
            answer: dict[str, Any] = ray.get(task, timeout=seconds)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(task, force=True)
            raise ServiceError(f"the measuring node with '{self.resource}' does not answer in time") from None
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ServiceError(f"the measuring node with '{self.resource}' is lost, or failed: {reason}") from error
        return answer
