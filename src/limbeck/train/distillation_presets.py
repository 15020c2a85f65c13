"""The presets of ``distill``: published settings under one name. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tinybert": {
        "match": ["logits", "hidden", "attention"],
        "intermediate_epochs": 20,
        "num_train_epochs": 3,
        "learning_rate": 3e-5,
        "logits_loss": "soft_cross_entropy",
        "temperature": 1.0,
        "shared_projection": True,
    },
    "fastformers": {"logits_loss": "mse", "layer_map": "last", "per_device_train_batch_size": 64},
    "fastformers-states": {
        "match": ["logits", "hidden"],
        "logits_loss": "mse",
        "layer_map": "last",
        "per_device_train_batch_size": 64,
        "hidden_weight": 2 / 64,  # the original's ratio 1: its logits are summed over the batch, states averaged
    },
    "minilm": {"match": ["logits", "relations"]},
    "patient": {
        "match": ["logits", "hidden"],
        "hidden_loss": "cosine",
        "temperature": 5.0,
        "logits_weight": 0.5,
        "task_weight": 0.5,
    },
}
