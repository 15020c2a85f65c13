"""What the rest of the code may ask of a model: protocols, so that neither torch nor ONNX Runtime is needed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from limbeck.core.shape import Shape

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from transformers import PretrainedConfig


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


@runtime_checkable
class TrainableEncoder(Runnable, Protocol):
    """A model with weights: what techniques with the trait ``torch`` receive."""

    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration in the words of transformers."""
        ...

    def run(self, batch: Mapping[str, Any], **options: Any) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """Return the logits and the tapped tensors of a batch.

        Args:
            batch: ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``, each [batch, seq].
            **options: ``shape`` (the slice to run), ``gates`` and ``taps``, as the encoder takes them.
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
