"""ONNX: write an encoder as a graph, read such a graph back, and run it with ONNX Runtime."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.analytic_cost import as_shape
from limbeck.core.cascade import Cascade, cascade_in
from limbeck.core.early_exits import exits_in, leaves_early
from limbeck.core.logits import joined_rows
from limbeck.core.sentence_embedding import embedding_in
from limbeck.core.shape import Shape
from limbeck.core.target import FloatFormat
from limbeck.errors import InputError, LimbeckError
from limbeck.model import external
from limbeck.model.layout import shape_of, style_of

if TYPE_CHECKING:
    import numpy as np
    from onnxruntime import InferenceSession, OrtValue

    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.external import OnnxGraph
    from limbeck.model.onnx.graph import Blueprint
    from limbeck.model.style import Style

CASCADE_KEY = "limbeck_cascade"  # of the metadata of a graph that holds two models
FLOAT_FILE, INT8_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"
"""Where sentence-transformers, transformers.js and text-embeddings-inference look."""


class OnnxModel:
    """An ONNX file in a model folder, run by ONNX Runtime.

    ``config`` is the content of the folder's config.json. Sessions are made when first used, one for each number of
    threads, and stay. One thread is the default: at batch 1 a second one gains little and costs a core; many batches
    are rather divided among threads that each compute one.
    """

    thread_safe: Literal[True] = True
    fresh_head, untrained = False, ""  # a head that must be trained is not exported
    space: Mapping[str, Any] | None = None  # a graph has no slices

    def __init__(self, folder: str | Path, file: str, config: Mapping[str, Any]) -> None:
        self.folder, self.file, self.config = Path(folder), file, dict(config)
        self._sessions: dict[int, InferenceSession] = {}

    def __repr__(self) -> str:
        return f"OnnxModel({self.shape}, {self.path})"

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / self.file

    @property
    def shape(self) -> Shape:
        """Shape of the encoder."""
        return shape_of(self.config)

    @property
    def style(self) -> Style:
        """Style of the encoder."""
        return style_of(self.config)

    @property
    def runtime(self) -> str:
        """Where this model runs."""
        return "onnxruntime"

    @property
    def int8(self) -> bool:
        """Whether this is the quantized file."""
        return self.file == INT8_FILE

    @property
    def leaves_early(self) -> bool:
        """Whether inner heads answer texts that they are sure of."""
        return leaves_early(self.config, self.folder)

    @property
    def cascade(self) -> Cascade | None:
        """What is known of the smaller of two models that the graph holds; None where it holds one."""
        return cascade_in(self.config, self.folder)

    @property
    def size_bytes(self) -> int:
        """Bytes of the ONNX file and of the external data beside it."""
        return sum(file.stat().st_size for file in external.files(self.path))

    def session(self, threads: int = 1) -> InferenceSession:
        """Return the session that computes with that many threads."""
        if threads not in self._sessions:
            self._sessions[threads] = open_session(self.path, threads)
        return self._sessions[threads]

    @property
    def inputs(self) -> frozenset[str]:
        """Names of what the graph reads, without opening a session."""
        return frozenset(entry.name for entry in external.load(self.path).graph.input)

    def close(self) -> None:
        """Free the memory of the sessions; the next use opens another."""
        self._sessions.clear()

    def predict(self, batch: Mapping[str, Any], threads: int = 1) -> np.ndarray:
        """Logits of a batch of torch tensors or arrays; entries that the graph does not read are ignored.

        A missing attention_mask stands for ones, missing token_type_ids for zeros.
        """
        return answer(self.session(threads), batch)


def answer(session: InferenceSession, batch: Mapping[str, Any]) -> np.ndarray:
    """Logits of a batch of torch tensors or arrays; see :meth:`OnnxModel.predict`."""
    import numpy as np

    ids = np.asarray(batch["input_ids"], dtype=np.int64)
    fill = {"attention_mask": np.ones_like, "token_type_ids": np.zeros_like}
    feed = {}
    for entry in session.get_inputs():
        given = batch.get(entry.name)
        feed[entry.name] = fill[entry.name](ids) if given is None else np.asarray(given, dtype=np.int64)
    logits: np.ndarray = joined_rows(session.run([session.get_outputs()[0].name], feed)[0], batch)
    return logits


def open_session(
    model: str | Path | OnnxGraph,
    threads: int = 1,
    *,
    exact: bool = False,
    providers: Sequence[str | tuple[str, dict[str, Any]]] = ("CPUExecutionProvider",),
) -> InferenceSession:
    """Open a file, or a graph in memory, on the CPU unless other providers are given.

    Threads that wait do not spin: on idle cores that costs some 6 % with two threads, on busy ones it more than
    halves the time (measured: 3.0 against 7.5 ms).

    ``exact``: sum products of 8 bits without saturation on any processor (see ``vnni_emulation.py``). ONNX Runtime then
    stores matrices with weights beyond 64 without sign, which is slower.

    Args:
        model: Path of a file, or a graph.
        threads: Threads that compute.
        exact: Compute as written, without rewriting the graph.
        providers: Execution providers of ONNX Runtime, the preferred one first, as its sessions take them.

    Raises:
        InputError: The file cannot be opened.
        LimbeckError: The preferred provider is installed and does not work here.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1" if exact else "0")
    options.log_severity_level = 3  # errors alone
    source: str | bytes
    values: list[OrtValue] = []
    if isinstance(model, (str, Path)):
        source = str(model)
    elif isinstance(model, external.LargeGraph):
        values = model.add_to(options)
        source = model.proto.SerializeToString()
    else:
        source = model.SerializeToString()
    preferred = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if preferred != "CPUExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):  # since 1.21
        with contextlib.redirect_stdout(sys.stderr):  # where it reports what it does not find
            onnxruntime.preload_dlls()  # the libraries of CUDA from packages, which no search path names
    try:
        session = onnxruntime.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # a class of its own for each kind of damage, none of them public
        if not isinstance(model, (str, Path)):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{model} cannot be opened as an ONNX model, it may be cut off or damaged: {first}") from error
    vars(session)["external_initializers"] = values  # the session points into them
    if preferred not in session.get_providers():  # ONNX Runtime falls back to the processor with a message alone
        raise LimbeckError(
            f"ONNX Runtime could not start {preferred}, and would compute on the processor; its libraries (CUDA, "
            "cuDNN, TensorRT) are missing or of another version: pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    return session


def to_onnx(
    model: LimbeckForSequenceClassification,
    path: str | Path,
    *,
    fused: bool = True,
    precision: FloatFormat = "float32",
    long_texts: bool = False,
) -> Path:
    """Write a torch model as ONNX in floating point.

    ``fused=False`` uses standard operators alone (opset 20): slower here, but any runtime reads it.

    Args:
        model: The torch model.
        path: File to write.
        fused: Use ONNX Runtime's own operators.
        precision: Weights and arithmetic of the graph; token ids and logits are the same in both.
        long_texts: Write attention that is fast for texts of some hundred tokens or more; it answers any.

    Returns:
        The path.
    """
    from limbeck.model.onnx.float16 import to_float16
    from limbeck.model.onnx.graph import build

    graph, _ = build(*parts(model, fused=fused, long_texts=long_texts))
    return write(to_float16(graph) if precision == "float16" else graph, path)


def write(graph: OnnxGraph, path: str | Path) -> Path:
    """Write a graph to a file (above 2 GB with its weights beside it); the path."""
    import onnx

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    external.remove(path)  # rather than write over what a session may have mapped
    if isinstance(graph, external.LargeGraph):
        external.save(graph, path)
    else:
        onnx.save(graph, str(path))
    return path


def parts(
    model: LimbeckForSequenceClassification, *, fused: bool = True, long_texts: bool = False
) -> tuple[Blueprint, dict[str, np.ndarray]]:
    """Return blueprint and weights of a torch model: matrices [inputs, outputs]; query, key and value in one.

    Args:
        model: The torch model.
        fused: As for :func:`to_onnx`.
        long_texts: As for :func:`to_onnx`.
    """
    import numpy as np

    from limbeck.model.onnx.disentangled import relative_tables
    from limbeck.model.onnx.graph import Blueprint

    style, shape = model.encoder.style, as_shape(model.shape)
    blueprint = Blueprint(
        shape=shape,
        activation=style.activation,
        pooler=style.pooler,
        epsilon=style.layer_norm_eps,
        pad_token_id=style.pad_token_id,
        position_offset=style.position_offset,
        per_token=model.per_token,
        fused=fused,
        masks_queries=style.masks_queries,
        norm_first=style.norm_first,
        rotary_theta=tuple(style.rotary_theta),
        positions=style.max_positions if style.rotary_theta else 0,
        pooling=style.pooling,
        embedding=embedding_in(model.config.to_dict()),
        exits=exits_in(model.config.to_dict()) if model.leaves_early else None,
        long_texts=long_texts,
    )
    weights: dict[str, np.ndarray] = {}
    for name, tensor in model.state_dict().items():
        array = tensor.detach().float().cpu().numpy()
        matrix = array.ndim == 2 and not name.startswith(tuple(f"encoder.embeddings.{table}." for table in TABLES))
        lengths = name.endswith("lengths")
        weights[name.removeprefix("encoder.")] = array.swapaxes(-1, -2) if matrix or lengths else array
    if blueprint.exits is None:  # heads that never answer
        weights = {name: array for name, array in weights.items() if not name.startswith("exits.")}
    weights |= _position_biases(model, weights)
    weights |= relative_tables(model, weights)
    for index, layer in enumerate(shape.layers):
        for kind in ("weight", "bias"):
            names = [f"layers.{index}.{part}.{kind}" for part in ("query", "key", "value")]
            if names[0] in weights:
                joined = [weights.pop(name) for name in names]
                weights[f"layers.{index}.attention.{kind}"] = np.concatenate(joined, axis=-1)
        assert weights[f"layers.{index}.attention.weight"].shape[1] == 3 * layer.heads * shape.head_dim, "cut it first"
    types = weights.get("embeddings.token_type.weight")
    if types is not None and len(types) == 1:  # one type for all (RoBERTa) is part of the position, or of the word
        table = f"embeddings.{'position' if 'embeddings.position.weight' in weights else 'word'}.weight"
        weights[table] = weights[table] + types
        del weights["embeddings.token_type.weight"]
    return blueprint, weights


def _position_biases(model: LimbeckForSequenceClassification, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replace the table of position biases by rows [heads, distance] from the largest distance before to after."""
    import torch

    from limbeck.model.attention import relative_buckets

    biases = model.encoder.position_bias
    if weights.pop("position_bias.weight", None) is None or biases is None:
        return {}
    style, table = model.encoder.style, biases.weight.detach().float().cpu()
    distances = torch.arange(-style.relative_distance, style.relative_distance + 1)
    rows = table[relative_buckets(distances, len(table), style.relative_distance)].t().contiguous().numpy()
    layers = model.encoder.layers
    if all(layer.position_heads == tuple(range(len(rows))) for layer in layers):
        return {"position_bias": rows}
    return {f"layers.{index}.position_bias": rows[list(layer.position_heads)] for index, layer in enumerate(layers)}


TABLES = ("word", "position", "token_type")


def read_parts(path: str | Path) -> tuple[Blueprint, dict[str, np.ndarray]]:
    """Blueprint and weights of a float graph that :func:`to_onnx` wrote; external data as memory maps.

    Weights of a graph in float16 come in float32, as whatever is made of them begins there.
    """
    from limbeck.model.onnx.assembly import KEY
    from limbeck.model.onnx.builder import all_initializers
    from limbeck.model.onnx.graph import Blueprint

    graph = external.load(Path(path))
    proto = graph.proto if isinstance(graph, external.LargeGraph) else graph
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if CASCADE_KEY in metadata:
        raise InputError(f"{path} holds the two models of a cascade; quantize each, then make a cascade of the results")
    text = metadata.get(KEY)
    if text is None:
        raise InputError(f"{path} was not written by limbeck; export the torch model with limbeck first")
    blueprint = Blueprint.from_json(text)
    if blueprint.int8:
        raise InputError(f"{path} is quantized already; quantize the float file that it was made from")
    weights = {entry.name: external.array_of(graph, entry) for entry in all_initializers(proto.graph)}
    weights = {name: array for name, array in weights.items() if not name.startswith("constant.")}
    halves = {name: array.astype("float32") for name, array in weights.items() if array.dtype == "float16"}
    return blueprint, weights | halves
