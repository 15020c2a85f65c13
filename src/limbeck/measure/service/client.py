"""The client of a measuring service, which the probes that time use for a target with a ``url``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from limbeck.core.measurement import machine_of
from limbeck.errors import InputError, MissingExtra, ServiceError, nearest, shown
from limbeck.measure.service.options import TOKEN, read_token

if TYPE_CHECKING:
    import httpx2

    from limbeck.core.target import Target

CONNECT_SECONDS = 10
REFUSED = (408, 413, 415, 422)
"""Statuses about what was sent; others are about the service, and end a run."""
CURES = {
    401: f"set the environment variable {TOKEN} to the token of the service",
    403: f"give the service a token, and set the environment variable {TOKEN} here",
    429: "run again later",
    503: "run again later",
}


class Service:
    """A measuring service at an address; its token is that of the environment."""

    def __init__(self, url: str, transport: httpx2.BaseTransport | None = None) -> None:
        """Name the service; nothing is sent yet.

        Args:
            url: Its address.
            transport: Sends the requests; over the network unless given.
        """
        self.url, self._transport = url.rstrip("/"), transport

    def health(self) -> dict[str, Any]:
        """Return the facts of the machine, and the limits of the service.

        Raises:
            ServiceError: It cannot be reached, refuses us, or is something else.
        """
        with self._client(CONNECT_SECONDS) as client:
            facts = self._json(self._send(client, "GET", "/health"))
        try:
            known = facts["service"] == "limbeck"
            machine_of(facts["environment"])
            int(facts["limits"]["bytes"]), int(facts["limits"]["seconds"]), list(facts["runtimes"])
        except (KeyError, TypeError, ValueError, AttributeError):
            known = False
        if not known:
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
        plain = self._post(text, graphs, facts)
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

    def _post(self, text: str, graphs: Sequence[Path], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Send a session and wait for its turn and its end: before it, as many as wait there now."""
        turns = int(facts.get("waiting", 0)) + 2
        patience = turns * 2 * (float(facts["limits"]["seconds"]) + CONNECT_SECONDS)
        with ExitStack() as stack:
            client = stack.enter_context(self._client(patience))
            kind = "application/octet-stream"
            files = [
                ("graph", (f"{index}.onnx", stack.enter_context(path.open("rb")), kind))
                for index, path in enumerate(graphs)
            ]
            return self._json(self._send(client, "POST", "/measure", data={"request": text}, files=files))

    def _client(self, seconds: float) -> httpx2.Client:
        httpx = _httpx()
        token = read_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        client: httpx2.Client = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, transport=self._transport
        )
        return client

    def _send(self, client: httpx2.Client, method: str, path: str, **body: Any) -> httpx2.Response:  # data and files
        """Send a request; whatever goes wrong on the way, or is refused, is one clear error."""
        httpx = _httpx()
        try:
            response = client.request(method, path, **body)
        except httpx.TimeoutException:
            raise ServiceError(f"the measuring service at {self.url} does not answer in time") from None
        except httpx.TransportError as error:
            advice = "is 'limbeck measure serve' running there?"
            reason = str(error) or type(error).__name__
            raise ServiceError(f"the measuring service at {self.url} cannot be reached ({reason}); {advice}") from None
        if response.status_code == 200:
            return response
        try:
            reason = shown(str(response.json()["error"]), 1000).strip("'\"")
        except (ValueError, KeyError, TypeError):
            reason = f"status {response.status_code}"
        if response.status_code in REFUSED:
            raise InputError(f"the measuring service at {self.url} refuses this: {reason}")
        cure = CURES.get(response.status_code, "is it the address of 'limbeck measure serve'?")
        raise ServiceError(f"the measuring service at {self.url} says: {reason}; {cure}")

    def _json(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            plain = response.json()
        except ValueError:
            plain = None
        if not isinstance(plain, dict):
            raise ServiceError(f"{self.url} is no measuring service of limbeck: its answer is no JSON object")
        return plain


def check_service(target: Target) -> None:
    """Check the measuring service of a target before any work starts; of a target without one, nothing.

    Args:
        target: The target.

    Raises:
        ServiceError: It cannot be used.
    """
    if target.url is not None:
        Service(target.url).check(target)


@lru_cache
def machine_at(url: str, transport: httpx2.BaseTransport | None = None) -> str:
    """Return the digest of the machine of a measuring service, for which alone its times hold.

    Args:
        url: Address of the service, which is asked once.
        transport: See :class:`Service`.
    """
    return machine_of(Service(url, transport).health()["environment"])


def _httpx() -> ModuleType:
    try:
        import httpx2
    except ModuleNotFoundError as error:
        raise MissingExtra("httpx2", "serve") from error
    return httpx2
