"""Time models together: what the probes of latency and of throughput share.

All models are loaded in one fresh process and called in turns, on this machine or by the measuring service of the
target. The calls differ: single texts or requests as they come, or batches of many texts.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import environment
from limbeck.core.target import Target
from limbeck.storage.drafts import temporary_folder
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.measure.backends import Runner
    from limbeck.measure.requests import Call
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel


@dataclass(frozen=True)
class TimedSample:
    """The texts that are timed, and how often: a group of fields.

    Attributes:
        samples: Texts in the sample.
        rounds: Timed rounds.
        warmup: Rounds that are not timed.
        split: Where the texts come from.
    """

    samples: Annotated[int, Ge(1), Le(100_000)] = 40
    rounds: Annotated[int, Ge(1), Le(10_000)] = 15
    warmup: Annotated[int, Ge(0), Le(10_000)] = 1
    split: str = "test"

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: every round answers the sample, on one core.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        texts = min(self.samples, rows.get(self.split, self.samples)) * (self.rounds + self.warmup)
        return forward_seconds(shape, texts, tokens) * (os.cpu_count() or 1)


@dataclass(frozen=True)
class TimedModels:
    """What a session measured.

    Attributes:
        answer: Its answer: of :func:`session`, or of a measuring service.
        runtimes: Runtime of each model.
        target: Where the models were timed.
        text_decides: Of each model, whether it depends on what a text says how much is computed; empty: of none.
        name: Identifies the session: figures compare only within one.
    """

    answer: Mapping[str, Any]
    runtimes: Sequence[str]
    target: Target
    text_decides: Sequence[bool] = ()
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def detail(self, index: int, rounds: Sequence[float]) -> dict[str, Any]:
        """Return what is kept with the figures of a model.

        Args:
            index: The model.
            rounds: Its figure of each round.
        """
        return {
            "session": self.name,
            "rounds": [float(f"{figure:.6g}") for figure in rounds],
            "runtime": self.answer["words"][index],
            "machine": self.answer["machine"],
            **self.answer.get("conditions", {}),
        }


def check_here(target: Target, candidates: Sequence[Candidate]) -> None:
    """Refuse a runtime or a device that this machine lacks, and models it cannot run, if it is the one that times.

    Args:
        target: The target; of one elsewhere, the measuring service answers for that.
        candidates: The models.
    """
    from limbeck.measure.backends import check_models

    if target.url is None:
        check_models(target, [candidate.model for candidate in candidates])


def time_models(
    candidates: Sequence[Candidate],
    inputs: Sequence[Sequence[Call]],
    target: Target,
    sample: TimedSample,
    log: Callable[..., None],
) -> TimedModels:
    """Time candidates in one session, here or by the measuring service of the target.

    Args:
        candidates: The models.
        inputs: Calls of each model: batches of token ids, as nested lists.
        target: Where they are timed.
        sample: How many rounds.
        log: Told if the machine was busy.
    """
    from limbeck.measure.backends import runner_options
    from limbeck.measure.isolation import run_timed
    from limbeck.measure.machine_state import Conditions
    from limbeck.measure.samples import text_decides

    repetitions = {"rounds": sample.rounds, "warmup": sample.warmup}
    with contextlib.ExitStack() as stack:
        if target.url is not None:
            from limbeck.measure.service.client import Service

            paths = [stack.enter_context(exported(candidate, target)) for candidate in candidates]
            batches = [[batch for call in calls for batch in call] for calls in inputs]  # a call is one batch
            answer = Service(target.url).time(paths, batches, target, **repetitions)
        else:
            models = [str(stack.enter_context(stored(candidate))) for candidate in candidates]
            payload = {"models": models, "inputs": inputs, **runner_options(target), **repetitions}
            answer = run_timed("limbeck.measure.timed_session:session", payload, target)
    where = "the machine" if target.url is None else f"the machine at {target.url}"
    if warning := Conditions.from_json(answer["conditions"]).warning(target.threads, where):
        log(warning)
    models_timed = [candidate.model for candidate in candidates]
    return TimedModels(answer, [model.runtime for model in models_timed], target, list(map(text_decides, models_timed)))


@contextlib.contextmanager
def stored(candidate: Candidate) -> Iterator[Path]:
    """Yield the folder of a candidate; a temporary one if it has none."""
    if candidate.folder is not None:
        yield candidate.folder
        return
    from limbeck.model.checkpoints import save_model

    with temporary_folder() as folder:
        save_model(candidate.model, candidate.tokenizer, folder)
        yield folder


@contextlib.contextmanager
def exported(candidate: Candidate, target: Target) -> Iterator[Path]:
    """Yield the ONNX file of a candidate; of a torch model, one exported in floating point for this alone.

    Args:
        candidate: The candidate.
        target: Gives the runtime, which decides the operators of an export.
    """
    if candidate.model.runtime != "torch":
        yield cast("OnnxModel", candidate.model).path
        return
    from limbeck.measure.dummy_model import PLAIN_RUNTIMES
    from limbeck.measure.samples import has_long_texts
    from limbeck.model.onnx.onnx_model import to_onnx

    model = cast("LimbeckForSequenceClassification", candidate.model)
    with temporary_folder() as folder:
        name = f"export of {type(model).__name__}.onnx"
        fused, long_texts = target.runtime not in PLAIN_RUNTIMES, has_long_texts(candidate.task, candidate.tokenizer)
        yield to_onnx(model, folder / name, fused=fused, long_texts=long_texts)


def session(payload: dict[str, Any]) -> dict[str, Any]:
    """Load every model once in the child process and time them alternately."""
    from limbeck.measure.backends import RUNNER_OPTIONS, make_runner
    from limbeck.model.checkpoints import open_model

    options = {name: payload[name] for name in RUNNER_OPTIONS}
    return time_runners([make_runner(open_model(folder)[0], **options) for folder in payload["models"]], payload)


def time_runners(runners: Sequence[Runner], payload: Mapping[str, Any]) -> dict[str, Any]:
    """Time loaded models alternately.

    Args:
        runners: The models.
        payload: ``inputs`` of each model: calls of batches of nested lists, ``rounds`` and ``warmup``; ``threads`` of
            this process, whether it is ``pinned``, and the ``device`` unless it is the processor.

    Returns:
        ``seconds`` [models, rounds, calls], for each model its runtime in words and its mean number of tokens, and
        the ``conditions`` on the ``machine`` meanwhile.
    """
    import numpy as np

    from limbeck.measure.accelerator import clock, clock_rate, warm_up
    from limbeck.measure.backends import prepared_calls
    from limbeck.measure.machine_state import Conditions, MachineState, available_cores
    from limbeck.measure.timing import alternate

    calls = [prepared_calls(runner, inputs) for runner, inputs in zip(runners, payload["inputs"], strict=True)]
    device, rounds, warmup = payload.get("device", "cpu"), payload["rounds"], payload["warmup"]
    warm_up(calls, device)
    before, rate = MachineState.now(), clock_rate(device)
    timings = alternate(calls, len(payload["inputs"][0]), rounds, warmup=warmup, now=clock(device))
    after, pinned = MachineState.now(), bool(payload.get("pinned"))
    conditions = Conditions.between(before, after, payload["threads"], available_cores(), pinned=pinned)
    tokens = [
        [sum(np.sum(batch["attention_mask"]) for batch in call) for call in inputs] for inputs in payload["inputs"]
    ]
    return {
        "seconds": np.stack([timing.seconds for timing in timings]),
        "words": [runner.words for runner in runners],
        "mean_tokens": [float(np.mean(counts)) for counts in tokens],
        "machine": environment()["processor"],
        "conditions": conditions.to_json() | ({} if rate is None else {"gpu_mhz": [rate, clock_rate(device)]}),
    }
