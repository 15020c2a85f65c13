"""Graphs of dummy models that workers make before shapes are timed: only timing needs this machine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limbeck.core.search_space import Space
from limbeck.core.shape import Shape
from limbeck.cost_models import machine_profile
from limbeck.cost_models.collection import Collection, time_group
from limbeck.cost_models.latency_table import LatencyTable
from limbeck.distributed.workers import Log, Values, Workers
from limbeck.measure.dummy_model import Setting, graph_of
from limbeck.storage.drafts import temporary_folder


def make_graph(payload: Values, report: Log) -> Values:
    """Export a dummy model in a worker.

    Args:
        payload: ``shape`` and ``setting``, as JSON.
        report: Receives nothing.

    Returns:
        ``files``: the bytes of the graph's files, by name.
    """
    from limbeck.model.onnx.onnx_model import write

    with temporary_folder() as folder:
        write(graph_of(Shape.from_json(payload["shape"]), Setting.from_json(payload["setting"])), folder / "model.onnx")
        return {"files": {path.name: path.read_bytes() for path in sorted(folder.iterdir())}}


@dataclass(frozen=True)
class GraphsAhead:
    """Times shapes whose graphs workers have made.

    Attributes:
        workers: Make the graphs; None leaves it to the process that times.
        alone: Returns what keeps everything else from this machine.
    """

    workers: Workers | None
    alone: Callable[[], AbstractContextManager[None]]

    def time_group(self, shapes: Sequence[Shape], setting: Setting, plan: Collection) -> np.ndarray:
        """Time shapes alternately in a fresh process, alone on the machine; see ``collection.time_group``.

        Args:
            shapes: What to time.
            setting: How encoders of these shapes are run.
            plan: Gives rounds, calls and seconds.
        """
        with self._graphs(shapes, setting) as files, self.alone():
            return time_group(shapes, setting, plan, files)

    def table_of(self, space: Space, setting: Setting) -> LatencyTable:
        """Measure the latency table of a space, alone on the machine; see ``machine_profile.table_of``.

        Args:
            space: The space.
            setting: How encoders are run.
        """
        with self.alone():
            return machine_profile.table_of(space, setting)

    @contextmanager
    def _graphs(self, shapes: Sequence[Shape], setting: Setting) -> Iterator[list[Path]]:
        """Yield a graph of each shape; none where the process that times makes them."""
        if self.workers is None or setting.target.runtime == "torch":
            yield []
            return
        orders = [{"shape": shape.to_json(), "setting": setting.to_json()} for shape in shapes]
        futures = [self.workers.submit(make_graph, order) for order in orders]
        with temporary_folder() as folder:
            for number, future in enumerate(futures):
                (folder / str(number)).mkdir()
                for name, data in future.result()["files"].items():
                    (folder / str(number) / name).write_bytes(data)
            yield [folder / str(number) / "model.onnx" for number in range(len(futures))]
