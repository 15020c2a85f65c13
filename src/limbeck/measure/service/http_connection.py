"""Speak to a measuring service over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from limbeck.errors import InputError, MissingExtra, ServiceError, shown
from limbeck.measure.service.options import TOKEN, read_token

if TYPE_CHECKING:
    import httpx2

CONNECT_SECONDS = 10
REFUSED = (408, 413, 415, 422)
"""Statuses about what was sent; others are about the service, and end a run."""
CURES = {
    401: f"set the environment variable {TOKEN} to the token of the service",
    403: f"give the service a token, and set the environment variable {TOKEN} here",
    429: "run again later",
    503: "run again later",
}


class HttpConnection:
    """A connection over HTTP, or HTTPS; its token is that of the environment."""

    def __init__(self, url: str, transport: httpx2.BaseTransport | None = None) -> None:
        """Name the service; nothing is sent yet.

        Args:
            url: Its address.
            transport: Sends the requests; over the network unless given.
        """
        self.url, self._transport = url, transport

    def health(self) -> dict[str, Any]:
        """Return what the service says of its machine and its limits."""
        with self._client(CONNECT_SECONDS) as client:
            return self._json(self._send(client, "GET", "/health"))

    def measure(self, text: str, graphs: Sequence[Path], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Send a session and wait for its turn and its end: before it, as many as wait there now.

        Args:
            text: The request, as JSON.
            graphs: The ONNX files.
            facts: What :meth:`health` returned.
        """
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


def _httpx() -> ModuleType:
    try:
        import httpx2
    except ModuleNotFoundError as error:
        raise MissingExtra("httpx2", "serve") from error
    return httpx2
