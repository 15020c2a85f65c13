"""Encoders with random weights that stand in for trained ones of the same shape, since speed does not depend on values.

A description is plain data, so it can be sent to the process that times it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limbeck.core.analytic_cost import NumberFormat
from limbeck.core.candidate import Candidate
from limbeck.core.model import EncoderStyle
from limbeck.core.shape import Shape, skipped_positions
from limbeck.core.target import Target
from limbeck.errors import InputError
from limbeck.measure.accelerator import check_provider, providers
from limbeck.measure.backends import (
    NO_INT8,
    OnnxRunner,
    OpenVinoRunner,
    Runner,
    TorchRunner,
    check_device,
    check_runtime,
)
from limbeck.model.onnx.graph import LONG_TEXT
from limbeck.model.style import Style
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.external import OnnxGraph

PLAIN_RUNTIMES = frozenset({"openvino", "tensorrt"})
"""Runtimes of standard operators: what ONNX Runtime has beside them, they lack."""
VOCABULARY = 1000  #: a look-up costs the same in any table of words
OPTIONS = (
    "relative_buckets", "relative_heads", "pos_att_type", "share_att_key", "position_buckets", "max_relative_positions",
    "relative_norm", "project_before_norm", "masks_queries", "norm_first", "absolute_positions", "embedding_norm",
    "norm_bias", "attention_bias", "ffn_bias", "gated", "rotary_theta", "unnormed_layers", "pooling", "pooler_bias",
    "pooler_norm", "pooler_per_token",
)  # fmt: skip
"""Fields of a style that few families use; a description names those that differ from the default."""


@dataclass(frozen=True)
class Setting:
    """How dummy models are made and run: everything but the shape.

    ``long_texts``: their graphs have attention for long texts, as those of a task with such texts have; unless given,
    where ``seq_len`` is that long. Only graphs of ONNX Runtime's own operators differ. ``text_lengths``: tokens of each
    text of a batch, of which ``seq_len`` is the longest; unless given, all are that long.
    """

    style: Mapping[str, Any]
    target: Target
    number_format: NumberFormat = "float"
    seq_len: int = 32
    per_token: bool = False
    long_texts: bool | None = None
    text_lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.long_texts is None or self.target.runtime != "onnxruntime":
            long = self.seq_len >= LONG_TEXT and self.target.runtime == "onnxruntime"
            object.__setattr__(self, "long_texts", long)

    @classmethod
    def of(cls, candidate: Candidate, target: Target, number_format: NumberFormat) -> Setting:
        """Return how models like a candidate are served: its texts give the length, unless the target does.

        Vectors read all tokens whatever their pooling, so they are stood in for by mean pooling.

        Args:
            candidate: Gives the task, the tokenizer and the style.
            target: Where it is served.
            number_format: ``float`` or ``int8``.
        """
        from limbeck.core.analytic_cost import of_model
        from limbeck.measure.samples import has_long_texts, typical_batch

        kind, style = candidate.task.task_kind, style_of(of_model(candidate.model)[1])
        style |= {"pooling": "mean"} if kind.vectors else {}
        lengths = (target.seq_len,) * target.batch if target.seq_len else typical_batch(candidate, target.batch)
        padded = lengths if min(lengths) < max(lengths) else ()
        long_texts = has_long_texts(candidate.task, candidate.tokenizer)
        return cls(style, target, number_format, max(lengths), kind.per_token, long_texts, padded)

    def check(self) -> None:
        """Refuse what cannot be timed here, before any work starts."""
        if self.number_format == "int8" and self.target.runtime == "torch":
            raise InputError("INT8 is timed in the runtimes onnxruntime and openvino, the target says torch")
        check_runtime(self.target.runtime)
        if self.number_format == "int8" and self.target.device != "cpu":
            raise InputError(NO_INT8.format(device=self.target.device))
        check_device(self.target.device)
        if self.target.runtime != "torch":
            check_provider(self.target.runtime, self.target.device)
        for name, count in (("threads", self.target.threads), ("batch", self.target.batch)):
            if count < 1:
                raise InputError(f"{name}: should be at least 1, got {count}")
        self.check_length(self.seq_len)

    def check_length(self, tokens: int) -> None:
        """Refuse a text without tokens, or with more than there are positions."""
        if not 1 <= tokens <= self.most_tokens:
            raise InputError(
                f"lengths should be from 1 to the model's {self.most_tokens} positions, got {tokens} tokens"
            )

    @property
    def reads_all(self) -> bool:
        """Whether all tokens are read at the end: each is answered, or they are averaged."""
        return self.per_token or self.style.get("pooling") == "mean"

    @property
    def form(self) -> str:
        """The number format in words: int8, float, or another precision; and whether torch compiles."""
        precise = self.number_format == "float" and self.target.precision != "float32"
        words = self.target.precision if precise else self.number_format
        return f"{words}, compiled" if self.target.compile else words

    @property
    def most_tokens(self) -> int:
        """Tokens that there are positions for."""
        return int(self.style["max_positions"]) - skipped_positions(self.style["position_offset"])

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        data = asdict(self) | {"target": self.target.identity()}
        long, lengths = data.pop("long_texts"), data.pop("text_lengths")  # left out where usual, for files from before
        return data | ({"long_texts": True} if long else {}) | ({"text_lengths": list(lengths)} if lengths else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Setting:
        """Inverse of :meth:`to_json`."""
        lengths = tuple(data.get("text_lengths", ()))
        return cls(**{"long_texts": False, **data, "target": Target(**data["target"]), "text_lengths": lengths})


def style_of(style: EncoderStyle) -> dict[str, Any]:
    """Select the fields of a style that decide the speed."""
    given, usual = (asdict(each) if isinstance(each, Style) else {} for each in (style, Style()))
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    options = {name: plain[name] for name in OPTIONS if name in plain and plain[name] not in (usual[name], [])}
    return options | {
        "family": style.family,
        "embedding_size": style.embedding_size,
        "max_positions": style.max_positions,
        "token_types": style.token_types,
        "position_offset": style.position_offset,
        "pad_token_id": style.pad_token_id,
        "activation": style.activation,
        "pooler": style.pooler,
        "projections": style.projections,
    }


def inputs(setting: Setting) -> dict[str, np.ndarray]:
    """Make a batch of random tokens, int64 [batch, seq], padded if its texts are of several lengths."""
    ids = np.random.default_rng(0).integers(5, VOCABULARY, (setting.target.batch, setting.seq_len))
    lengths = np.array(setting.text_lengths or [setting.seq_len] * setting.target.batch)
    mask = (np.arange(setting.seq_len) < lengths[:, None]).astype(ids.dtype)
    return {
        "input_ids": np.where(mask, ids, _padding(setting)),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
    }


def _padding(setting: Setting) -> int:
    """Return the id that stands for padding in the small vocabulary."""
    pad: int = setting.style["pad_token_id"]
    return pad if pad < VOCABULARY else 0


def stand_in(shape: Shape, setting: Setting) -> LimbeckForSequenceClassification:
    """Build a torch model of that shape with random weights."""
    from limbeck.model.classification_head import model_class
    from limbeck.model.configuration import LimbeckConfig
    from limbeck.model.layout import shape_config

    style = {**setting.style, "vocab_size": VOCABULARY, "pad_token_id": _padding(setting)}
    config = LimbeckConfig(**shape_config(shape), **style)
    return model_class(per_token=setting.per_token)(config)


def runner_of(shape: Shape, setting: Setting, graph: str | None = None) -> Runner:
    """Load a dummy model in the runtime of the setting.

    Args:
        shape: Shape of the model.
        setting: Everything else.
        graph: File of its graph; made now unless given.
    """
    from limbeck.model.onnx.onnx_model import open_session, write

    target = setting.target
    if target.runtime == "torch":
        model = stand_in(shape, setting)
        return TorchRunner(model, target.device, plain=False, precision=target.precision, compile=target.compile)
    if target.runtime == "openvino":
        with temporary_folder() as folder:
            file = Path(graph) if graph is not None else write(graph_of(shape, setting), folder / "model.onnx")
            return OpenVinoRunner(file, target.threads)
    where = providers(target.runtime, target.device)
    return OnnxRunner(open_session(graph or graph_of(shape, setting), target.threads, providers=where), str(shape))


def warm_calls(
    shapes: Sequence[Shape], setting: Setting, graphs: Sequence[str] = ()
) -> list[Callable[[int], np.ndarray]]:
    """Load a dummy model of each shape and return calls that answer one batch; each was called once.

    The argument of a call is ignored: ``timing.alternate`` passes the index of an input.

    Args:
        shapes: Shapes of the models.
        setting: Everything else.
        graphs: Files of their graphs; made now unless given.
    """
    calls: list[Callable[[int], np.ndarray]] = []
    for number, shape in enumerate(shapes):
        runner = runner_of(shape, setting, graphs[number] if graphs else None)
        calls.append(partial(_answer, runner, runner.prepare(inputs(setting))))
    for call in calls:
        call(0)
    return calls


def _answer(runner: Runner, batch: object, _: int) -> np.ndarray:
    return runner(batch)


def graph_of(shape: Shape, setting: Setting) -> OnnxGraph:
    """Export a dummy model as an ONNX graph for the runtime of the setting, in its number format."""
    from limbeck.model.onnx.float16 import to_float16
    from limbeck.model.onnx.graph import build as build_graph
    from limbeck.model.onnx.onnx_model import parts
    from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

    target = setting.target
    fused, long_texts = target.runtime not in PLAIN_RUNTIMES, bool(setting.long_texts)
    model_parts = parts(stand_in(shape, setting), fused=fused, long_texts=long_texts)
    if setting.number_format == "int8":
        names = quantizable_modules(*model_parts)
        ranges = {} if model_parts[0].fused else dict.fromkeys(names, (-8.0, 8.0))  # any: they cost the same
        return quantize(*model_parts, Int8(frozenset(names), ranges=ranges))
    graph = build_graph(*model_parts)[0]
    return to_float16(graph) if target.precision == "float16" else graph
