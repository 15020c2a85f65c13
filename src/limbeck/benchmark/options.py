"""What a user asks of ``limbeck bench``: a grid of architectures, how to time it, how to train it. Light to import."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from limbeck.benchmark.grid import Approach
from limbeck.core.target import Precision, Runtime
from limbeck.errors import InputError

Mode = Literal["alone", "shared"]
Count = Annotated[int, Ge(1), Le(100_000)]


@dataclass(frozen=True)
class Grid:
    """Which architectures.

    Attributes:
        layers: Numbers of layers of the base model.
        hidden: Hidden widths of the base model; heads and neurons scale. Varied alone, at 12 layers at most.
        attention_ratio: Shares of the base model's attention to keep.
        attention_approach: What a share leaves: fewer heads, heads with their leading channels, or the leading channels
            of all heads split anew.
        jointly: Every combination of these lists; without, one at a time, layers and attention ratios in pairs.
        miniatures: The 24 BERT miniatures: 2 to 12 layers of 128 to 768.
        all: Depths (2 to 12 layers unless --layers says which), widths (128 to 768 unless --hidden does) and the
            miniatures.
        attention: Attention cores of all layers (softmax, linformer, window, kernel; a size after a colon), compared at
            every length, with the memory that each needs and the length from which on it is faster than softmax.
        base: 'bert-large-uncased' or 'bert-base-uncased' (the architecture alone), or a model folder or hub name, of
            which the configuration is read, and the weights where models are trained.
    """

    layers: tuple[Annotated[int, Ge(1), Le(1000)], ...] = ()
    hidden: tuple[Count, ...] = ()
    attention_ratio: tuple[Annotated[float, Gt(0), Le(1)], ...] = ()
    attention_approach: Approach = "head_num"
    jointly: bool = False
    miniatures: bool = False
    all: bool = False
    attention: tuple[str, ...] = ()
    base: str = "bert-large-uncased"


@dataclass(frozen=True)
class Timing:
    """How to time them.

    Attributes:
        runtime: What answers; several give a figure each. tensorrt is ONNX Runtime with its provider for TensorRT.
        number_format: float, int8, or both (int8 not in the runtime torch).
        seq_len: Tokens in a text; several give a figure each. Without any 128, or the lengths of --task.
        batch: Texts in a call.
        threads: Threads of a process.
        device: cpu or cuda:N; INT8 is timed on the processor alone.
        precision: Arithmetic of models in float; several give a figure each. bfloat16 is for the runtime torch, float16
            for torch, ONNX Runtime and TensorRT.
        compile: Run models of the runtime torch through torch.compile.
        weight_shared: Time every architecture as a slice of one super model (runtime torch).
        trials: Processes for each architecture.
        calls: Calls in each process.
        warmup_ratio: Share of them, the first, that does not count.
    """

    runtime: tuple[Runtime, ...] = ("onnxruntime",)
    number_format: tuple[Literal["float", "int8"], ...] = ("float",)
    seq_len: tuple[Count, ...] = ()
    batch: Count = 1
    threads: Annotated[int, Ge(1), Le(1024)] = 1
    device: str = "cpu"
    precision: tuple[Precision, ...] = ("float32",)
    compile: bool = False
    weight_shared: bool = False
    trials: Annotated[int, Ge(1), Le(1000)] = 3
    calls: Annotated[int, Ge(1), Le(1_000_000)] = 100
    warmup_ratio: Annotated[float, Ge(0), Lt(1)] = 0.1


@dataclass(frozen=True)
class Training:
    """How to train them.

    Attributes:
        train: Train every architecture alone, all as slices of one model, or both [default: train nothing].
        task: Task to train on and to judge by; its test texts give the lengths to time, unless seq_len does.
        train_samples: Most training texts [default: all].
        epochs: Passes over the training texts.
        train_batch_size: Texts in a batch.
        learning_rate: The highest learning rate.
        rule: Slices in a step: the largest, the smallest and one drawn; or one drawn, nothing else.
        split: What the accuracy is of.
        seed: Decides which training texts, their order, and all that is drawn.
        initial_weights: Pretrained weights: of the base, of which every point is a leading part, and of miniatures
            trained alone their own. Or random ones, with a vocabulary of the training texts: they need many texts.
    """

    train: Literal["individual", "shared", "both"] | None = None
    task: str | None = None
    train_samples: Annotated[int, Ge(1)] | None = None
    epochs: Annotated[float, Gt(0), Le(100_000)] = 3.0
    train_batch_size: Count = 64
    learning_rate: Annotated[float, Gt(0), Le(100)] = 5e-5
    rule: Literal["sandwich", "single"] = "sandwich"
    split: str = "validation"
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    initial_weights: Literal["pretrained", "random"] = "pretrained"

    @property
    def ways(self) -> tuple[Mode, ...]:
        """How models come by their weights."""
        ways: dict[str | None, tuple[Mode, ...]] = {"individual": ("alone",), "shared": ("shared",), None: ()}
        return ways.get(self.train, ("alone", "shared"))

    def check(self) -> None:
        """Refuse what contradicts itself, before anything is read."""
        changed = [name for name, value in asdict(self).items() if value != getattr(Training(), name)]
        if self.train is None and (idle := [name for name in changed if name != "task"]):
            raise InputError(
                f"--{idle[0].replace('_', '-')} applies to training; add --train individual, shared or both"
            )
        if self.train is not None and self.task is None:
            raise InputError("--train needs a task; add --task movie-reviews, or a folder with texts and labels")
        if self.rule != Training.rule and "shared" not in self.ways:
            raise InputError("--rule applies to shared weights; use --train shared or both")

    def plan(self) -> dict[str, Any]:
        """Fields of a training step. Its last weights are kept: none are chosen on the texts that judge them."""
        return {
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.train_batch_size,
            "learning_rate": self.learning_rate,
            "evaluations_per_epoch": 0,
        }
