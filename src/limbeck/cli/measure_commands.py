"""Commands that measure for other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from limbeck.cli._app import Store
from limbeck.measure.service.options import ServiceOptions


def serve(
    *,
    options: Annotated[ServiceOptions, Parameter(name="*")] = ServiceOptions(),  # noqa: B008 frozen
    store: Store = None,
) -> None:
    """Time ONNX graphs for other machines, over HTTP, one session after another.

    A recipe names the service as 'target: {url: …}', and 'limbeck compress' and 'limbeck run' as --target. It accepts
    ONNX graphs and token ids alone. Clients send the token of the variable LIMBECK_TOKEN.

    Args:
        options: Where to listen, and the limits.
        store: Folder of finished work; a measurement has the machine alone among the runs with the same store.
    """
    from limbeck.cli._app import check_options
    from limbeck.engine.store.store import Store as OpenStore
    from limbeck.measure.service.server import serve as serve_measurements

    check_options(options)
    options.token()  # what is wrong with it is said before anything is loaded
    opened = OpenStore.of(Path(store) if store else None)
    opened.prepare()
    serve_measurements(options, opened.machine.alone)
