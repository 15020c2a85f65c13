"""The client of a measuring service, which the probes that time use for a target with a ``url``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from limbeck.core.measurement import machine_of
from limbeck.core.target import RAY
from limbeck.errors import InputError, ServiceError, nearest
from limbeck.measure.service.http_connection import HttpConnection
from limbeck.measure.service.ray_connection import RayConnection

if TYPE_CHECKING:
    import httpx2

    from limbeck.core.target import Target

_machines: dict[tuple[str, httpx2.BaseTransport | None], str] = {}
"""Digests of the machines of services, as they were when the newest run began."""


class Connection(Protocol):
    """A way to a measuring service."""

    def health(self) -> dict[str, Any]:
        """Return what the service says of its machine and its limits.

        Raises:
            ServiceError: It cannot be reached, or refuses us.
        """
        ...

    def measure(self, text: str, graphs: Sequence[Path], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Have a session carried out, and return its answer.

        Args:
            text: The request, as JSON.
            graphs: The ONNX files.
            facts: What :meth:`health` returned.

        Raises:
            ServiceError: The service cannot be used.
            InputError: It refuses these graphs.
        """
        ...


class Service:
    """A measuring service: over HTTP, or tasks of a Ray cluster on a node with a resource."""

    def __init__(self, url: str, transport: httpx2.BaseTransport | None = None) -> None:
        """Name the service; nothing is sent yet.

        Args:
            url: Its address.
            transport: Sends the requests; over the network unless given.
        """
        self.url, self._transport = url.rstrip("/"), transport
        resource = RAY.fullmatch(self.url)
        self._connection: Connection = (
            RayConnection(resource[1]) if resource is not None else HttpConnection(self.url, transport)
        )

    def health(self) -> dict[str, Any]:
        """Return the facts of the machine, and the limits of the service.

        Raises:
            ServiceError: It cannot be reached, refuses us, or is something else.
        """
        facts = self._connection.health()
        try:
            is_service = facts["service"] == "limbeck"
            machine_of(facts["environment"])
            int(facts["limits"]["bytes"]), int(facts["limits"]["seconds"]), list(facts["runtimes"])
        except (KeyError, TypeError, ValueError, AttributeError):
            is_service = False
        if not is_service:
            raise ServiceError(f"{self.url} is no measuring service of limbeck, or another version of it")
        return facts

    def check(self, target: Target) -> dict[str, Any]:
        """Return the :meth:`health` of a service that can measure for a target.

        Args:
            target: Gives runtime and threads.

        Raises:
            ServiceError: It cannot be used, or lacks the runtime or the cores.
        """
        facts = self.health()
        if target.runtime not in facts["runtimes"]:
            runtimes = facts["runtimes"]
            raise ServiceError(f"{self.url} has no runtime '{target.runtime}'; {nearest(target.runtime, runtimes)}")
        cores = facts["environment"].get("cores")
        if isinstance(cores, int) and target.threads > cores:
            raise ServiceError(f"target.threads: the machine at {self.url} has {cores} cores, got {target.threads}")
        return facts

    def time(
        self,
        graphs: Sequence[Path],
        inputs: Sequence[Sequence[Mapping[str, Any]]],
        target: Target,
        *,
        rounds: int,
        warmup: int,
    ) -> dict[str, Any]:
        """Have graphs timed alternately in one session.

        Args:
            graphs: ONNX files without external data.
            inputs: Batches of each graph, as nested lists by name.
            target: Gives runtime and threads.
            rounds: Timed rounds.
            warmup: Rounds before those.

        Returns:
            The same as :func:`limbeck.measure.timed_session.session`.

        Raises:
            ServiceError: The service cannot be used.
            InputError: It refuses these graphs.
        """
        from limbeck.measure.service.request import TimingAnswer, parse
        from limbeck.model import external

        settings = {"runtime": target.runtime, "threads": target.threads, "rounds": rounds, "warmup": warmup}
        text = json.dumps({"inputs": inputs, **settings})
        request = parse(text)  # it says here what the service would refuse
        facts = self.check(target)
        for path in graphs:
            if len(external.files(path)) > 1:
                raise InputError(f"{path.name}: is above 2 GB, and the service at {self.url} takes single files")
        size = sum(path.stat().st_size for path in graphs) + len(text) + 1000 * (1 + len(graphs))
        if size > facts["limits"]["bytes"]:
            limit = f"{facts['limits']['bytes'] / 1e6:,.0f} MB"
            raise InputError(
                f"{len(graphs)} graphs of {size / 1e6:,.0f} MB are more than {self.url} takes ({limit}); start it with "
                f"--max-mb {-(-size // 1_000_000)}"
            )
        plain = self._connection.measure(text, graphs, facts)
        try:
            timed = TimingAnswer.from_json(plain, (len(graphs), rounds, len(request.inputs[0])))
        except InputError as error:
            raise ServiceError(f"{self.url}: {error}") from error
        if machine_of(timed.environment) != machine_at(self.url, self._transport):
            raise ServiceError(f"{self.url} is another machine than before, or has other libraries; run again")
        return {
            "seconds": timed.seconds,
            "words": [f"{target.runtime}, {path.name}" for path in graphs],
            "mean_tokens": timed.mean_tokens,
            "machine": timed.environment["processor"],
            "conditions": timed.conditions.to_json(),
        }


def check_service(target: Target, transport: httpx2.BaseTransport | None = None) -> None:
    """Check the measuring service of a target before any work starts; of a target without one, nothing.

    Args:
        target: The target.
        transport: See :class:`Service`.

    Raises:
        ServiceError: It cannot be used.
    """
    if target.url is not None:
        service = Service(target.url, transport)
        _machines[service.url, transport] = machine_of(service.check(target)["environment"])


def machine_at(url: str, transport: httpx2.BaseTransport | None = None) -> str:
    """Return the digest of the machine of a measuring service, for which alone its times hold.

    Args:
        url: Address of the service, which is asked once in a run; by the next one another machine may answer there.
        transport: See :class:`Service`.
    """
    service = Service(url, transport)
    if (service.url, transport) not in _machines:
        _machines[service.url, transport] = machine_of(service.health()["environment"])
    return _machines[service.url, transport]
