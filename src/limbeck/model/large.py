"""ONNX graphs whose weights exceed a protocol buffer: the arrays stay outside, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

LIMIT = 2_000_000_000
"""Bytes of weights up to which they lie in the graph's own file; a protocol buffer holds 2^31 - 1 bytes in all."""
SMALL = 1024
"""Bytes below which an array stays in the graph: shapes must be known when it is checked."""
ALIGNED = 4096
"""Where arrays begin in the file of weights, so that it can be mapped into memory page by page."""


@dataclass(frozen=True)
class LargeModel:
    """A graph and the arrays that it names but does not hold."""

    proto: ModelProto
    arrays: Mapping[str, np.ndarray]

    @property
    def graph(self) -> GraphProto:
        """Nodes, inputs and outputs."""
        return self.proto.graph

    def save(self, path: Path) -> None:
        """Write the graph to ``path``, and the arrays beside it one after the other."""
        initializers = {entry.name: entry for entry in self.proto.graph.initializer}
        with data_file(path).open("wb") as file:
            for name, array in self.arrays.items():
                file.write(bytes(-file.tell() % ALIGNED))
                entry, offset = initializers[name], file.tell()
                np.ascontiguousarray(array).tofile(file)
                del entry.external_data[:]
                values = {"location": data_file(path).name, "offset": offset, "length": array.nbytes}
                for key, value in values.items():
                    entry.external_data.add(key=key, value=str(value))
        path.write_bytes(self.proto.SerializeToString())


def data_file(path: Path) -> Path:
    """Where the weights of a large graph lie, beside it."""
    return path.with_name(f"{path.name}_data")


def size_on_disk(path: Path) -> int:
    """Bytes of an ONNX file and of the weights beside it."""
    return sum(file.stat().st_size for file in (path, data_file(path)) if file.is_file())


def initializers(arrays: Mapping[str, np.ndarray], limit: int | None = None) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Make the initializers of a graph.

    Args:
        arrays: The constants of the graph by name.
        limit: Bytes up to which all of them lie in the graph; None: :data:`LIMIT`.

    Returns:
        The initializers, and the arrays that they only name.
    """
    from onnx import TensorProto, helper, numpy_helper

    total = sum(array.nbytes for array in arrays.values())
    large = total > (LIMIT if limit is None else limit)
    made, outside = [], {}
    for name, array in arrays.items():
        if large and array.nbytes >= SMALL:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            made.append(TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL))
            outside[name] = array
        else:
            made.append(numpy_helper.from_array(np.array(array, order="C"), name))
    return made, outside


def read_array(entry: TensorProto, folder: Path) -> np.ndarray:
    """Array of an initializer; one outside of the graph is mapped from its file, not read."""
    from onnx import TensorProto, helper, numpy_helper

    if entry.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(entry)
    where = {item.key: item.value for item in entry.external_data}
    kind = helper.tensor_dtype_to_np_dtype(entry.data_type)
    return np.memmap(
        folder / where["location"], kind, mode="r", offset=int(where.get("offset", 0)), shape=tuple(entry.dims)
    )
