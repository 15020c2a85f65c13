"""The HTTP side of the measuring service: who may ask, how much, and one after another."""

from __future__ import annotations

import asyncio
import hmac
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from limbeck.errors import InputError, LimbeckError, MissingExtra
from limbeck.measure.service.machine_facts import machine_facts
from limbeck.measure.service.options import LOCAL, ServiceOptions
from limbeck.measure.service.request import MAX_GRAPHS, parse
from limbeck.measure.service.timing_session import measure
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from starlette.types import Message, Receive

Alone = Callable[[], AbstractContextManager[None]]
REQUEST_BYTES = 64_000_000
"""Largest part with token ids."""
BODY_SECONDS = 600
"""Longest time for a body to arrive, during which others wait."""


@dataclass
class Line:
    """Requests that wait for their turn; one is carried out at a time."""

    capacity: int
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn; refuse where as many wait as may."""
        if self.lock.locked() and self.waiting >= self.capacity:
            raise HTTPException(
                429, f"busy: {self.waiting} requests wait already; try again later", {"Retry-After": "60"}
            )
        self.waiting += 1
        try:
            await self.lock.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.lock.release()


class MeasuringService:
    """The endpoints: ``GET /health`` and ``POST /measure``."""

    def __init__(self, options: ServiceOptions, token: str, alone: Alone) -> None:
        """Prepare the service.

        Args:
            options: Its limits.
            token: What clients must send; '' for none.
            alone: Has the machine alone for a measurement.
        """
        self.options, self.alone = options, alone
        self._token, self._line = token, Line(options.queue)

    def app(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/health", self.health, methods=["GET"]),
            Route("/measure", self.measure, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refusal})

    async def health(self, request: Request) -> JSONResponse:
        """Describe the machine and the limits."""
        self._admit(request)
        line = {"busy": self._line.lock.locked(), "waiting": self._line.waiting}
        return JSONResponse(machine_facts(self._bytes, self.options.max_seconds) | line)

    async def measure(self, request: Request) -> JSONResponse:
        """Time the graphs of a form: ``request`` is JSON, each ``graph`` an ONNX file."""
        self._admit(request)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._bytes:
            raise _too_large(self._bytes)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(415, "send multipart/form-data with the fields 'request' (JSON) and 'graph' (ONNX)")
        async with self._line.turn():  # before the body is read: its arrival would disturb another measurement
            limited = Request(request.scope, _counted(request.receive, self._bytes))
            with temporary_folder() as folder:
                text, graphs = await _read(limited, folder)
                return await self._answer(text, graphs)

    @property
    def _bytes(self) -> int:
        return self.options.max_mb * 1_000_000

    async def _answer(self, text: str, graphs: Sequence[Path]) -> JSONResponse:
        try:
            parsed = parse(text)
            answer = await run_in_threadpool(measure, parsed, graphs, self.alone, float(self.options.max_seconds))
        except MissingExtra as error:
            raise HTTPException(422, f"runtime: {error}") from error
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        except LimbeckError as error:  # the child process took too long or was killed
            print(error, file=sys.stderr, flush=True)  # noqa: T201 for whoever runs the service; clients get a line
            raise HTTPException(422, f"the measurement failed: {str(error).splitlines()[0].rstrip(':')}") from error
        return JSONResponse(answer.to_json())

    def _admit(self, request: Request) -> None:
        """Refuse whoever does not have the token, and pages in browsers of this machine's users."""
        given = request.headers.get("authorization", "").encode("latin-1")
        if self._token and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        if not self._token and ("origin" in request.headers or request.url.hostname not in LOCAL):
            raise HTTPException(403, "without a token, only programs on this machine may ask, and no browser")


def _counted(receive: Receive, limit: int) -> Receive:
    """Return a receiver that refuses a body beyond the limit, whatever its header says."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the request is larger than {limit // 1_000_000:,} MB, the limit of this service")


async def _read(request: Request, folder: Path) -> tuple[str, list[Path]]:
    """Read a form: the text of ``request``, and the graphs as files in a folder."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            form = await request.form(max_files=MAX_GRAPHS, max_fields=1, max_part_size=REQUEST_BYTES)
    except TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {BODY_SECONDS} seconds") from None
    try:
        text, uploads = form.get("request"), form.getlist("graph")
        files = [upload for upload in uploads if isinstance(upload, UploadFile)]
        if unknown := sorted({*form} - {"request", "graph"}):
            raise HTTPException(422, f"there is no field '{unknown[0][:100]}'; the fields are 'request' and 'graph'")
        if not isinstance(text, str):
            raise HTTPException(422, "the field 'request' is missing: JSON with inputs, threads and rounds")
        if not files or len(files) != len(uploads):
            raise HTTPException(422, "the field 'graph' is missing: one ONNX file or several")
        paths = []
        for index, upload in enumerate(files):  # names of the client are not used
            paths.append(folder / f"{index}.onnx")
            with paths[-1].open("wb") as stream:
                while piece := await upload.read(1 << 20):
                    stream.write(piece)
        return text, paths
    finally:
        await form.close()


def _refusal(request: Request, error: Exception) -> JSONResponse | Awaitable[JSONResponse]:
    """Answer with the reason as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
