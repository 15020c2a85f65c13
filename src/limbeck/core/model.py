"""Protocols for models: what other packages may use, without importing torch or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from limbeck.core.shape import Shape

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from transformers import PretrainedConfig

    from limbeck.core.task import Task


class EmbeddingSizes(Protocol):
    """Sizes of the embedding tables; :class:`limbeck.model.style.Style` and a configuration have them."""

    @property
    def vocab_size(self) -> int:
        """Rows of the token table."""
        ...

    @property
    def max_positions(self) -> int:
        """Rows of the position table."""
        ...

    @property
    def token_types(self) -> int:
        """Rows of the segment table."""
        ...

    @property
    def embedding_size(self) -> int | None:
        """Width of the tables; None: the hidden width."""
        ...

    @property
    def projections(self) -> str:
        """Which learned projections of the sequence length Linformer's layers have."""
        ...


class EncoderStyle(EmbeddingSizes, Protocol):
    """What costs and timings depend on besides the shape; :class:`limbeck.model.style.Style` has more."""

    @property
    def family(self) -> str:
        """Name of the family, such as 'bert'."""
        ...

    @property
    def position_offset(self) -> int | None:
        """Position before that of the first token; None counts positions from 0."""
        ...

    @property
    def pad_token_id(self) -> int:
        """Id of the padding token."""
        ...

    @property
    def activation(self) -> str:
        """Activation of the neurons."""
        ...

    @property
    def pooler(self) -> str:
        """Activation of the layer before the output layer."""
        ...

    @property
    def absolute_positions(self) -> bool:
        """Whether a table of positions is added to the embeddings."""
        ...

    @property
    def embedding_norm(self) -> bool:
        """Whether the embeddings are normalized."""
        ...

    @property
    def norm_first(self) -> bool:
        """Whether the parts of a layer normalize what they read, and a last norm follows the layers."""
        ...

    @property
    def unnormed_layers(self) -> Sequence[int]:
        """Layers whose attention has no norm."""
        ...

    @property
    def norm_bias(self) -> bool:
        """Whether norms have a bias."""
        ...

    @property
    def attention_bias(self) -> bool:
        """Whether the projections of attention have biases."""
        ...

    @property
    def ffn_bias(self) -> bool:
        """Whether the linear maps of the feed-forward part have biases."""
        ...

    @property
    def gated(self) -> bool:
        """Whether a neuron is an activation times a second linear map."""
        ...

    @property
    def pooler_bias(self) -> bool:
        """Whether the layer before the output layer has a bias."""
        ...

    @property
    def pooler_norm(self) -> bool:
        """Whether a norm follows the layer before the output layer."""
        ...

    @property
    def pooler_per_token(self) -> bool:
        """Whether token classification has the layer before the output layer too."""
        ...

    @property
    def pooling(self) -> str:
        """What a text classifier reads: ``cls``, the first token, or ``mean``, all of them."""
        ...

    @property
    def rotary_theta(self) -> Sequence[float]:
        """Base of the rotary positions of each layer; empty without them."""
        ...

    @property
    def relative_buckets(self) -> int:
        """Rows of the table of position biases, 0 without one."""
        ...

    @property
    def relative_heads(self) -> int:
        """Columns of that table."""
        ...

    @property
    def pos_att_type(self) -> Sequence[str]:
        """Terms of disentangled attention besides that of the contents."""
        ...

    @property
    def masks_queries(self) -> bool:
        """Whether padding has embeddings of zero and attends to all tokens alike."""
        ...

    @property
    def share_att_key(self) -> bool:
        """Whether relative embeddings are projected by the matrices of queries and keys."""
        ...

    @property
    def position_buckets(self) -> int:
        """Buckets of distances in each direction, 0 for one a distance."""
        ...

    @property
    def max_relative_positions(self) -> int:
        """Distance beyond which all share the last bucket."""
        ...

    @property
    def relative_norm(self) -> bool:
        """Whether relative embeddings are normalized."""
        ...

    @property
    def project_before_norm(self) -> bool:
        """Whether embeddings are projected, without a bias, before they are normalized."""
        ...


@runtime_checkable
class Runnable(Protocol):
    """A model that answers batches: a torch model or an ONNX file. ``model/checkpoints.py`` opens and saves both."""

    def predict(self, batch: Mapping[str, Tensor]) -> np.ndarray:
        """Return the logits of a batch [batch, classes], or [batch, seq, classes] for token labels."""
        ...

    @property
    def shape(self) -> Shape:
        """Widths of every layer."""
        ...

    @property
    def runtime(self) -> str:
        """'torch' or 'onnxruntime'."""
        ...

    @property
    def style(self) -> EncoderStyle:
        """How the encoder computes, apart from its shape."""
        ...

    @property
    def int8(self) -> bool:
        """Whether it is quantized with dynamic ranges, so that an answer depends on the texts of its batch."""
        ...

    @property
    def fresh_head(self) -> bool:
        """Whether a part of the head is random and not trained yet."""
        ...

    @property
    def untrained(self) -> str:
        """Why the head is not trained; empty if it is."""
        ...

    @property
    def space(self) -> Mapping[str, Any] | None:
        """The space of the slices that are good models too, as JSON; None if there is none."""
        ...

    @property
    def leaves_early(self) -> bool:
        """Whether heads after inner layers answer texts that they are sure of."""
        ...


@runtime_checkable
class TrainableEncoder(Runnable, Protocol):
    """A model with weights: what techniques with the trait ``torch`` receive."""

    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration in the words of transformers."""
        ...

    def run(
        self, batch: Mapping[str, Tensor], *, shape: Shape | None = None, taps: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Return the logits and the tapped tensors of a batch.

        Args:
            batch: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each [batch, seq].
            shape: The slice to run; None runs all.
            taps: Names of the activations to return.
        """
        ...

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the model's kind of task, a scalar."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield every weight."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights by name."""
        ...


@dataclass(frozen=True)
class AnswersOnly:
    """What is known, before it is opened, of a teacher that gives answers and nothing else.

    Attributes:
        source: How the user named it.
        reason: Why it only gives answers.
        reads_new_texts: Whether it can be asked for any text; a file of scores has only those that are in it.
        probabilities: Whether it gives probabilities, which are logits up to a constant; None where it is not known.
    """

    source: str
    reason: str
    reads_new_texts: bool = True
    probabilities: bool | None = False


@runtime_checkable
class AnswerSource(Protocol):
    """A teacher that only gives answers: it reads texts in its own way and shows no hidden state."""

    @property
    def identity(self) -> str:
        """Identifies the source in the names of cached answers; empty where asking again costs nothing."""
        ...

    @property
    def probabilities(self) -> bool:
        """Whether it gives probabilities: the logits are then their logarithms, right up to a constant."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of it."""
        ...

    @property
    def order_assumed(self) -> bool:
        """Whether its outputs have no names, so that they are taken to be in the order of the task's labels."""
        ...

    def lacks(self, task: Task, split: str) -> str:
        """Return why the source cannot answer a split; empty if it can."""
        ...

    def answer(self, task: Task, split: str) -> np.ndarray | list[np.ndarray]:
        """Return the logits of a split in the order of the task's labels [rows, labels].

        Where words have labels, a list of [words, labels], one for each text; NaN for words that the source cannot
        answer, because it cut the text before them or does not know them.
        """
        ...


@runtime_checkable
class VectorSource(AnswerSource, Protocol):
    """A teacher that only gives vectors."""

    @property
    def width(self) -> int:
        """Components of a vector."""
        ...

    @property
    def max_length(self) -> int:
        """Longest text that it reads, in its own tokens."""
        ...
