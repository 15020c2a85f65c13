"""Protocols for models: what other packages may use, without importing torch or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from limbeck.core.shape import Shape

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from transformers import PretrainedConfig


class EmbeddingSizes(Protocol):
    """Sizes of the embedding tables; :class:`limbeck.model.encoder.Style` and a configuration have them."""

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
    def projections(self) -> str:
        """Which learned projections of the sequence length Linformer's layers have."""
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
