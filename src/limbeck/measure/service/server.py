"""Listen for requests to measure, with uvicorn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limbeck.errors import MissingExtra
from limbeck.measure.service.options import ServiceOptions

if TYPE_CHECKING:
    from limbeck.measure.service.app import Alone


def serve(options: ServiceOptions, alone: Alone) -> None:
    """Serve until interrupted.

    Args:
        options: Where to listen, and the limits.
        alone: Has the machine alone for a measurement.

    Raises:
        InputError: The options contradict each other, or a token is missing.
        MissingExtra: The web framework is not installed.
    """
    token = options.token()
    try:
        import uvicorn

        from limbeck.measure.service.app import MeasuringService
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "uvicorn", "serve") from error
    if token and options.tls_cert is None and not options.is_local:
        print("note: without --tls-cert and --tls-key, the token travels in clear", file=sys.stderr)  # noqa: T201
    uvicorn.run(
        MeasuringService(options, token, alone).app(),
        host=options.host,
        port=options.port,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        log_level="warning",
        access_log=False,  # which would work while something is timed
        limit_concurrency=options.queue + 32,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
