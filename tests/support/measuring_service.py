"""A measuring service on this machine, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2

TOKEN = "a token of the tests"[2:].replace(" ", "-")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_service(folder, *options, token=TOKEN, scheme="http", verify=True):
    """Start ``limbeck measure serve``, yield its address, and end it."""
    port = free_port()
    command = [sys.executable, "-m", "limbeck", "measure", "serve"]
    arguments = ["--port", str(port), "--store", str(folder / "store")]
    variables = {**os.environ, "LIMBECK_TOKEN": token}
    with (folder / "service.log").open("wb") as log:
        child = subprocess.Popen([*command, *arguments, *options], env=variables, stdout=log, stderr=log)
    url = f"{scheme}://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        for _ in range(1200):
            assert child.poll() is None, (folder / "service.log").read_text()
            try:
                httpx2.get(f"{url}/health", headers=headers, verify=verify, timeout=10).raise_for_status()
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        else:
            raise AssertionError("the service did not start")
        yield url
    finally:
        child.terminate()
        child.wait(30)
