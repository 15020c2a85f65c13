"""Options of the measuring service; imports neither a framework nor numpy."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from limbeck.errors import InputError

TOKEN = "LIMBECK_TOKEN"
"""Environment variable with the token, of the service and of its clients."""
SHORTEST_TOKEN = 16
LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServiceOptions:
    """Where the service listens, and its limits.

    Attributes:
        host: Address to listen on. Others than this machine's own need a token.
        port: Port to listen on.
        token_file: File with the token that clients must send [default: the environment variable LIMBECK_TOKEN].
        tls_cert: File with the certificate chain (PEM), for https.
        tls_key: File with its private key (PEM).
        max_mb: Largest request: all graphs of a session with their token ids, in MB.
        max_seconds: Longest time of a measurement.
        queue: Requests that may wait for their turn; more are refused.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Ge(1), Le(65535)] = 8765
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_mb: Annotated[int, Ge(1), Le(100_000)] = 2000
    max_seconds: Annotated[int, Ge(1), Le(86_400)] = 1800
    queue: Annotated[int, Ge(0), Le(1000)] = 8

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        return self.host in LOCAL

    def token(self, variables: Mapping[str, str] | None = None) -> str:
        """Return the token; '' where none is needed.

        Args:
            variables: The environment; that of this process unless given.

        Raises:
            InputError: There is none and others could reach the service, or it is too short, or half of TLS is missing.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("--tls-cert and --tls-key belong together; give both, or neither")
        for name, path in (("--tls-cert", self.tls_cert), ("--tls-key", self.tls_key)):
            if path is not None and not path.is_file():
                raise InputError(f"{name}: there is no file {path}")
        token = read_token(variables) if self.token_file is None else _read_file(self.token_file)
        if not token and not self.is_local:
            raise InputError(
                f"--host {self.host}: others can reach that address, so a token is needed; set {TOKEN} or give "
                "--token-file, or listen on 127.0.0.1"
            )
        if token and len(token) < SHORTEST_TOKEN:
            raise InputError(f"the token should have at least {SHORTEST_TOKEN} characters, got {len(token)}")
        return token


def read_token(variables: Mapping[str, str] | None = None) -> str:
    """Return the token of the environment, '' if there is none.

    Args:
        variables: The environment; that of this process unless given.

    Raises:
        InputError: It has characters that an HTTP header cannot hold.
    """
    return _checked((os.environ if variables is None else variables).get(TOKEN, "").strip(), TOKEN)


def _read_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path}: cannot be read ({type(error).__name__})") from None
    if not text:
        raise InputError(f"--token-file {path}: is empty")
    return _checked(text, f"--token-file {path}")


def _checked(token: str, where: str) -> str:
    if not re.fullmatch(r"[!-~]{0,1000}", token):
        raise InputError(f"{where}: the token should be at most 1,000 printable ASCII characters without spaces")
    return token
