"""limbeck: make BERT-class encoders small and fast, and measure what that costs.

Importing it is cheap: the names below are loaded when they are first used. Importing it also teaches transformers' Auto
classes to open limbeck folders, whichever of the two is imported first, and keeps ONNX Runtime from reporting its use
to its makers, in this process and in those it starts, unless ``ORT_DISABLE_TELEMETRY`` is set already.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from limbeck import _register

if TYPE_CHECKING:
    from limbeck.core.decision import DecisionGoal
    from limbeck.core.shape import LayerShape, Shape
    from limbeck.core.target import Budget, Limits, Target
    from limbeck.core.task import Task
    from limbeck.data.loading import task_from_lists
    from limbeck.engine.planning.compress import compress
    from limbeck.engine.planning.training_options import Training
    from limbeck.engine.run import run
    from limbeck.engine.tasks.loading import load_task
    from limbeck.exported import cascade, export, quantize
    from limbeck.functional import distill, evaluate, latency, linearize, prune
    from limbeck.model.checkpoints import open_model, save_model
    from limbeck.recipe.recipe import Recipe, load_recipe

    __version__: str

__all__ = [
    "Budget",
    "DecisionGoal",
    "LayerShape",
    "Limits",
    "Recipe",
    "Shape",
    "Target",
    "Task",
    "Training",
    "__version__",
    "cascade",
    "compress",
    "distill",
    "evaluate",
    "export",
    "latency",
    "linearize",
    "load_recipe",
    "load_task",
    "open_model",
    "prune",
    "quantize",
    "run",
    "save_model",
    "task_from_lists",
]

_HOME = {
    "Budget": "limbeck.core.target",
    "DecisionGoal": "limbeck.core.decision",
    "LayerShape": "limbeck.core.shape",
    "Limits": "limbeck.core.target",
    "Recipe": "limbeck.recipe.recipe",
    "Shape": "limbeck.core.shape",
    "Target": "limbeck.core.target",
    "Task": "limbeck.core.task",
    "Training": "limbeck.engine.planning.training_options",
    "cascade": "limbeck.exported",
    "compress": "limbeck.engine.planning.compress",
    "distill": "limbeck.functional",
    "evaluate": "limbeck.functional",
    "export": "limbeck.exported",
    "latency": "limbeck.functional",
    "linearize": "limbeck.functional",
    "load_recipe": "limbeck.recipe.recipe",
    "load_task": "limbeck.engine.tasks.loading",
    "open_model": "limbeck.model.checkpoints",
    "prune": "limbeck.functional",
    "quantize": "limbeck.exported",
    "run": "limbeck.engine.run",
    "save_model": "limbeck.model.checkpoints",
    "task_from_lists": "limbeck.data.loading",
}


def __getattr__(name: str) -> Any:  # whatever is exported
    """Load a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("limbeck")
    if name not in _HOME:
        raise AttributeError(f"module 'limbeck' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})


os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it once, when it is imported
_register.install()
