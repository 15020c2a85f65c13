"""ONNX graphs whose weights do not fit one protocol buffer, which holds 2 GiB at most: their external data.

The weights of such a graph stay arrays: they are written beside the graph (``NAME_data``), read back as memory maps,
and given to ONNX Runtime as they are. ``onnx.model_container`` does the same with a copy of every array in bytes, other
file names and unaligned offsets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from limbeck.errors import InputError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto
    from onnxruntime import OrtValue, SessionOptions

LIMIT = 2_000_000_000
"""Bytes of all arrays up to which a graph is one protocol buffer."""
INLINE = 1024
"""Bytes below which an array stays in a large graph too: shapes and indices, which are looked at to plan memory."""
ALIGNMENT = 4096
"""Offsets in the data file are multiples of this, as the ONNX specification asks for memory maps."""


@dataclass(frozen=True, eq=False)
class LargeGraph:
    """A graph and its large arrays by the names of their initializers, which are marked as external data."""

    proto: ModelProto
    arrays: Mapping[str, np.ndarray]

    @property
    def graph(self) -> GraphProto:
        """The nodes, inputs, outputs and initializers."""
        return self.proto.graph

    def add_to(self, options: SessionOptions) -> list[OrtValue]:
        """Let a session read the arrays; those in C order are not copied.

        Args:
            options: Options of the session.

        Returns:
            What must live as long as the session, which points into it.
        """
        from onnxruntime import OrtValue

        values = [OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in self.arrays.values()]
        options.add_external_initializers(list(self.arrays), values)
        return values


OnnxGraph: TypeAlias = "ModelProto | LargeGraph"


def with_constants(model: ModelProto, constants: dict[str, np.ndarray]) -> OnnxGraph:
    """Check a graph without initializers, then give it its constants, which are taken out of ``constants``.

    So each array is in memory once: the checker and ``onnx.helper`` copy what a protocol buffer holds.
    """
    from onnx import ModelProto, TensorProto, checker, helper

    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in constants.items()}
    bare = ModelProto()
    bare.CopyFrom(model)
    bare.graph.input.extend(
        helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in constants.items()
    )
    checker.check_model(bare)
    large = sum(array.nbytes for array in constants.values()) > LIMIT
    arrays = {}
    for name in list(constants):
        array = constants.pop(name)
        if large and array.nbytes >= INLINE:
            tensor = model.graph.initializer.add(name=name, data_type=kinds[name], dims=array.shape)
            tensor.data_location = TensorProto.EXTERNAL
            _set_location(tensor, location="in memory")
            arrays[name] = array
        else:
            _add_inline(model, name, array)
    return LargeGraph(model, arrays) if arrays else model


def _add_inline(model: ModelProto, name: str, array: np.ndarray) -> None:
    from onnx import numpy_helper

    model.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.array(array, order="C"), name))


def array_of(model: OnnxGraph, tensor: TensorProto) -> np.ndarray:
    """Return the array of an initializer."""
    from onnx import numpy_helper

    if isinstance(model, LargeGraph) and tensor.name in model.arrays:
        return model.arrays[tensor.name]
    return numpy_helper.to_array(tensor)


def files(path: Path) -> list[Path]:
    """Return an ONNX file and the external data beside it, as limbeck or another exporter names it."""
    beside = (path.with_name(f"{path.name}{ending}") for ending in ("_data", ".data"))
    return [path, *(file for file in beside if file.is_file())]


def remove(path: Path) -> None:
    """Delete an ONNX file with its external data; sessions that read them keep their content."""
    for file in files(path):
        file.unlink(missing_ok=True)


def save(model: LargeGraph, path: Path) -> None:
    """Write a graph, and its arrays as ``NAME_data`` beside it, one after the other; then check the files."""
    from onnx import ModelProto, checker

    proto = ModelProto()
    proto.CopyFrom(model.proto)
    data = path.with_name(f"{path.name}_data")
    with data.open("wb") as stream:
        for tensor in proto.graph.initializer:
            if tensor.name not in model.arrays:
                continue
            array = model.arrays[tensor.name]
            offset = -(-stream.tell() // ALIGNMENT) * ALIGNMENT
            stream.seek(offset)
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            _set_location(tensor, location=data.name, offset=offset, length=array.nbytes)
    path.write_bytes(proto.SerializeToString())
    checker.check_model(os.fspath(path))


def load(path: Path) -> OnnxGraph:
    """Read a graph; external data comes as memory maps, which are read where they are looked at.

    Args:
        path: The ONNX file.

    Raises:
        InputError: The external data is missing, cut off, or in another folder.
    """
    import onnx

    proto = onnx.load(os.fspath(path), load_external_data=False)
    outside = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    return LargeGraph(proto, {tensor.name: _mapped(tensor, path) for tensor in outside}) if outside else proto


def _mapped(tensor: TensorProto, path: Path) -> np.ndarray:
    from onnx import helper

    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = entries.get("location", "")
    if not name or Path(name).name != name:
        raise InputError(f"{path}: the data of '{tensor.name}' is in '{name}'; expected a file beside {path.name}")
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    file, offset = path.with_name(name), int(entries.get("offset", 0))
    if not file.is_file():
        raise InputError(f"{path} has its weights in {name}, which is not there; copy both files")
    end = offset + int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize
    if file.stat().st_size < end:
        raise InputError(f"{file} has {file.stat().st_size} bytes, '{tensor.name}' ends at {end}; it is cut off")
    return np.asarray(np.memmap(file, dtype, "r", offset, tuple(tensor.dims)))


def extended(model: OnnxGraph, nodes: Sequence[NodeProto], constants: Mapping[str, np.ndarray]) -> OnnxGraph:
    """Return a copy of the graph with other nodes and more constants.

    Args:
        model: The graph.
        nodes: Its new nodes.
        constants: More constants, by name.
    """
    from onnx import ModelProto

    proto = ModelProto()
    proto.CopyFrom(model.proto if isinstance(model, LargeGraph) else model)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for name, array in constants.items():
        _add_inline(proto, name, array)
    return LargeGraph(proto, model.arrays) if isinstance(model, LargeGraph) else proto


def _set_location(tensor: TensorProto, **entries: object) -> None:
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
