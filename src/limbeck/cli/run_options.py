"""Groups of options that compress and run share: serving, teaching, folders, and how smaller models are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from limbeck.core.target import FloatFormat


@dataclass(frozen=True)
class Serving:
    """Setting in which the model will be served.

    Attributes:
        threads: Threads used for serving.
        batch: Texts in a call.
        seq_len: Tokens in a text; the lengths of the task's texts when not given.
        candidates: Documents in a request of a reranker; a call is then a request, in sub-batches of the fastest size.
        runtime: Runtime used for serving; auto is OpenVINO where it is installed and faster in INT8 on this machine,
            else ONNX Runtime.
        device: Where it serves: cpu, or cuda or cuda:N, where INT8 is not tried and models are not converted to linear
            attention.
        precision: What exported models compute in on a GPU.
        target: Address of a measuring service on the machine that counts, such as https://board:8765, in place of this
            one. The variable LIMBECK_TOKEN has its token.
        profile: Latency data of that machine, made there by 'limbeck profile --full'.
    """

    threads: Annotated[int, Ge(1), Le(1024)] = 1
    batch: Annotated[int, Ge(1), Le(100_000)] = 1
    seq_len: Annotated[int, Ge(1), Le(100_000)] | None = None
    candidates: Annotated[int, Ge(2), Le(10_000)] | None = None
    runtime: Literal["auto", "onnxruntime", "openvino", "tensorrt"] = "auto"
    device: str = "cpu"
    precision: FloatFormat = "float32"
    target: str | None = None
    profile: Path | None = None


@dataclass(frozen=True)
class Teaching:
    """Who teaches the smaller models.

    Attributes:
        teacher: Teacher of all models: any model, or a file of scores [default: the fine-tuned model].
        allow_weak_teacher: Continue with a fine-tuned model that was not shown to beat the best constant answer.
    """

    teacher: str | None = None
    allow_weak_teacher: bool = False


@dataclass(frozen=True)
class Folders:
    """Folders of what is written.

    Attributes:
        out: Folder of the artefact [default: RUN/artefact].
        folder: Folder of the run: recipe, ledger, report [default: runs/NAME].
    """

    out: Path | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Search:
    """How smaller models are found, and how thoroughly.

    Attributes:
        strategy: How smaller models are found: by pruning, by a search among the INT8 slices of a super-network, or by
            both on one front. A search is bounded by the latency limit; a size limit affects only the final choice.
        effort: Number of candidates and length of training and search. In one-shot nothing is trained after the
            fine-tuning, which gives a whole front in minutes and a starting point for a longer run.
        seed: Seed of everything random.
        replicas: Train the chosen model with this many seeds in total, and report the spread.
        max_minutes: Leave out trainings that would end later, counted from the start of the run, or whose result could
            not be chosen. Models that need no training are made first, and the same command with more goes on.
    """

    strategy: Literal["prune", "search", "both"] = "prune"
    effort: Literal["one-shot", "quick", "standard", "thorough"] = "standard"
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    replicas: Annotated[int, Ge(1), Le(1000)] = 1
    max_minutes: Annotated[float, Ge(0.1), Le(1e6)] | None = None
