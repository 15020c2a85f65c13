"""Export a torch model as an ONNX folder, and compare the logits of both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from limbeck.core.analytic_cost import as_shape
from limbeck.core.logits import require_finite_logits
from limbeck.core.target import FloatFormat
from limbeck.errors import LimbeckError
from limbeck.model.checkpoints import save_model
from limbeck.model.onnx.onnx_model import FLOAT_FILE, OnnxModel, to_onnx

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.model.encoder import LimbeckForSequenceClassification

ROUNDING = 1e-5
"""Share of the largest logit that sums in another order may differ by: some hundred roundings of float32."""
ELSEWHERE = 0.05
"""Share of the texts that may leave at another early exit."""
HALF_TOLERANCE = 0.02
"""Difference of logits in float16, relative to their spread, that counts as equal: some twenty of its roundings."""
TIE = 10 * ROUNDING
"""Margin by which tokens were chosen, relative to the attention received, that rounding may turn into another choice:
more than that of logits, as choices stand between layers."""
TIED = 0.1
"""Share of the texts that may have tied tokens, and other logits where the other token goes on."""


@dataclass(frozen=True)
class Parity:
    """Largest difference of the logits of two models, their largest size and spread, and on how many texts.

    ``changed`` counts answers whose largest logit is another one; where there is a single logit, none. ``elsewhere``
    counts texts that another head answered: rounding decides where a head is sure by a hair's breadth. Their logits are
    compared with those of that head. ``tied`` has the largest difference of each text with tied tokens: two receive the
    same attention but for rounding, which decides which of them goes on. ``difference`` leaves these texts out.
    """

    difference: float
    largest: float
    spread: float
    texts: int
    changed: int = 0
    elsewhere: int = 0
    tied: tuple[float, ...] = ()

    def allowed(self, tolerance: float) -> float:
        """Return the largest difference that counts as equal.

        >>> Parity(0.01, largest=8000.0, spread=0.5, texts=9).allowed(1e-3)
        0.081
        """
        return tolerance * max(1.0, self.spread) + ROUNDING * self.largest

    def __str__(self) -> str:
        changed = f", {self.changed} other answers" if self.changed else ""
        left = f", {self.elsewhere} from another early exit" if self.elsewhere else ""
        beyond, apart = self._tied_beyond(self.difference), ""
        if beyond:
            have = "text has" if len(beyond) == 1 else "texts have"
            apart = f"; {len(beyond)} of {self.texts} {have} tied tokens, and a difference of up to {max(beyond):.1e}"
        equal = f"ONNX gives torch's logits on {self.texts} texts, largest difference {self.difference:.1e}"
        return f"{equal}{changed}{left}{apart}"

    def _tied_beyond(self, difference: float) -> list[float]:
        """Return the differences of texts with tied tokens that are larger than this one."""
        return [each for each in self.tied if each > difference]

    def check(self, tolerance: float) -> None:
        """Raise a LimbeckError if the logits differ by more than is allowed, or rounding decides too many texts."""
        allowed = self.allowed(tolerance)
        if self.elsewhere > max(1, ELSEWHERE * self.texts):
            raise LimbeckError(
                f"export: {self.elsewhere} of {self.texts} texts leave the model in ONNX at other early exits than in "
                f"torch, more than {ELSEWHERE:.0%}; export in float32, or report the model"
            )
        if not self.difference <= allowed:
            raise LimbeckError(
                f"export: logits in ONNX differ from torch by up to {self.difference:.2g} on {self.texts} texts, more "
                f"than {allowed:.2g} (parity_tolerance {tolerance:g}, logits up to {self.largest:.2g}); give a larger "
                "parity_tolerance if that is exact enough, or report the model"
            )
        if (tied := len(self._tied_beyond(allowed))) > max(1, TIED * self.texts):
            raise LimbeckError(
                f"export: {tied} of {self.texts} texts, more than {TIED:.0%}, have tied tokens, between which "
                "rounding chooses, and other logits in ONNX than in torch; export in float32, or report the model"
            )


def export_model(
    model: LimbeckForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    fused: bool = True,
    precision: FloatFormat = "float32",
    long_texts: bool = False,
) -> OnnxModel:
    """Write a model as an ONNX folder: the graph, the configuration, the tokenizer and the torch weights.

    Args:
        model: The torch model.
        tokenizer: Its tokenizer.
        folder: Where to write.
        fused: Use ONNX Runtime's fused operators; without, standard ONNX alone.
        precision: Weights and arithmetic of the graph.
        long_texts: Write attention that is fast for texts of some hundred tokens or more.
    """
    save_model(model, tokenizer, folder)
    to_onnx(model, folder / FLOAT_FILE, fused=fused, precision=precision, long_texts=long_texts)
    exported = OnnxModel(folder, FLOAT_FILE, json.loads((folder / "config.json").read_text(encoding="utf-8")))
    save_model(exported, tokenizer, folder)
    return exported


def parity(
    model: Runnable,
    other: Runnable,
    batches: Iterable[dict[str, Tensor]],
    texts: Sequence[object],
    *,
    tie: float = TIE,
) -> Parity:
    """Compare the logits of two models in padded batches.

    Args:
        model: The reference.
        other: The model to compare.
        batches: Batches with ``index``, the places of their texts among ``texts``.
        texts: The texts, for messages.
        tie: Margin, relative to the attention received, by which layers that pass on fewer tokens chose them; up to it
            they are tied.

    Raises:
        InputError: The logits of the first are no numbers.
    """
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    changed = elsewhere = 0
    tied: list[bool] = []
    for batch in batches:
        answered, others = model.predict(batch), other.predict(batch)
        logits = _of_nearest_heads(model, batch, others) if model.leaves_early else answered
        if model.leaves_early:
            elsewhere += int((~np.isclose(logits, answered, atol=1e-4)).any(axis=-1).sum())
            changed += int((answered.argmax(-1) != others.argmax(-1)).sum())
        rows = list(zip(logits, others, strict=True))
        if logits.ndim == 3:
            real = np.asarray(batch["attention_mask"], dtype=bool)
            rows = [(a[r], b[r]) for (a, b), r in zip(rows, real, strict=True)]
        require_finite_logits([row for row, _ in rows], [texts[index] for index in batch["index"].tolist()])
        pairs += rows
        tied += _tied(model, batch, tie)
    before = np.concatenate([np.ravel(row) for row, _ in pairs])
    differences = np.array([np.abs(row - others).max() for row, others in pairs])
    apart = np.array(tied, dtype=bool) & np.isfinite(differences)  # no tie makes logits that are no numbers
    return Parity(
        difference=float(differences[~apart].max(initial=0.0)),
        largest=float(np.abs(before).max()),
        spread=float(np.abs(before - np.median(before)).max()),
        texts=len(pairs),
        changed=changed or sum(int((a.argmax(-1) != b.argmax(-1)).sum()) for a, b in pairs),
        elsewhere=elsewhere,
        tied=tuple(differences[apart].tolist()),
    )


def _tied(model: Runnable, batch: Mapping[str, Tensor], tie: float) -> list[bool]:
    """Return which rows of a batch have tied tokens, in any of the texts of a row."""
    from limbeck.model.selection_margins import selection_margins

    if not as_shape(model.shape).tokens:
        return [False] * len(batch["index"])
    margins = selection_margins(cast("LimbeckForSequenceClassification", model), batch)
    return [bool(margin <= tie) for margin in margins.reshape(len(batch["index"]), -1).min(1)]


def _of_nearest_heads(model: Runnable, batch: Mapping[str, Tensor], others: np.ndarray) -> np.ndarray:
    """Return for each text the logits of the head that comes nearest to other logits [batch, classes]."""
    import torch

    from limbeck.model.early_exits import all_logits

    encoder = cast("LimbeckForSequenceClassification", model)
    with torch.inference_mode():
        moved = {name: value.to(encoder.device) for name, value in batch.items()}
        heads = torch.stack(all_logits(encoder.eval(), moved)).float().cpu().numpy()
    nearest = np.abs(heads - others).max(axis=-1).argmin(axis=0)
    logits: np.ndarray = heads[nearest, np.arange(len(others))]
    return logits
