"""The main job in one call: plan a recipe for a model, a task and a budget, run it, and write the results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

from limbeck.core.decision import DecisionGoal
from limbeck.core.paths import user_path
from limbeck.core.target import Budget, FloatFormat, LatencyStatistic, Runtime, Target
from limbeck.core.task import Task
from limbeck.data.texts_task import has_no_labels
from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.engine.given_teacher import SCORES, prepare_teacher
from limbeck.engine.outputs import budget_violations, check_destinations, deliver
from limbeck.engine.planning.compress_request import CompressRequest, Effort, Strategy
from limbeck.engine.planning.planner import Planner
from limbeck.engine.planning.runtime_selection import Case, faster_core, faster_runtime
from limbeck.engine.planning.training_options import Training
from limbeck.engine.planning.whole_latency import whole_latency
from limbeck.engine.progress import listening
from limbeck.engine.result import RunResult
from limbeck.engine.run import default_folder, start
from limbeck.engine.run_log import OnEvent
from limbeck.engine.store.fingerprint import fingerprint
from limbeck.engine.store.ledger import Ledger
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.answered_texts import load_run_task
from limbeck.engine.tasks.checked_task import checked_task
from limbeck.engine.tasks.data_report import announce
from limbeck.engine.tasks.stored_task import FOLDER, keep_task
from limbeck.engine.tasks.task_adaptation import adapt_task, fit_length
from limbeck.errors import InputError, RenamedWarning, nearest
from limbeck.measure.backends import check_runtime
from limbeck.measure.service.client import check_service
from limbeck.model.location import model_folder
from limbeck.recipe.validation import check_values
from limbeck.report.text import front_frame, summary, summary_html

if TYPE_CHECKING:
    import pandas

    from limbeck.data.given import Given
    from limbeck.teachers.function import FunctionTeacher, TeacherFunction


@dataclass(frozen=True, repr=False)
class Compressed:
    """The run, the folders and files it wrote, and the limits that the chosen model exceeds.

    ``print`` shows the table of candidates that the command line shows, and so does a notebook.
    """

    result: RunResult
    written: Mapping[str, Path]
    budget_violations: tuple[str, ...]

    @property
    def unmet(self) -> tuple[str, ...]:
        """Former name of ``budget_violations``."""
        warnings.warn("Compressed.unmet is called budget_violations now", RenamedWarning, stacklevel=2)
        return self.budget_violations

    @property
    def artefact(self) -> Path | None:
        """The folder of the chosen model; None where nothing was chosen."""
        return self.written.get("artefact")

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.written["report"]

    @property
    def front(self) -> pandas.DataFrame:
        """The measured candidates, slowest first, a row each; ``on_front`` and ``chosen`` are columns."""
        return front_frame(self.result.first_summary)

    def summary(self) -> str:
        """Return the table of candidates and the outcome, as text."""
        return summary(self.result.first_summary, self.written)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        broken = "; ".join(self.budget_violations)
        state = f"does not meet the budget: {broken}" if broken else "meets the budget"
        artefact = f"{str(self.artefact)!r}, {state}" if self.artefact else "none"
        return f"Compressed({len(self.result.measured)} candidates measured, artefact {artefact})"

    def _repr_html_(self) -> str:
        return summary_html(self.result.first_summary, self.written)


def compress(
    model: str,
    task: Given,
    *,
    latency_ms: float | None = None,
    size_mb: float | None = None,
    max_drop: float | None = None,
    max_flips: float | None = None,
    confidence: float = 0.8,
    latency_statistic: LatencyStatistic = "p50",
    threads: int = 1,
    batch: int = 1,
    seq_len: int | None = None,
    candidates: int | None = None,
    runtime: Runtime | Literal["auto"] = "auto",
    device: str = "cpu",
    precision: FloatFormat = "float32",
    target: str | None = None,
    profile: str | Path | None = None,
    strategy: Strategy = "prune",
    effort: Effort = "standard",
    seed: int = 0,
    replicas: int = 1,
    max_minutes: float | None = None,
    training: Training | None = None,
    teacher: str | Path | TeacherFunction | None = None,
    allow_weak_teacher: bool = False,
    decision: DecisionGoal | None = None,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    store: Store | str | Path | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
    executor: ExecutorConfig | None = None,
) -> Compressed:
    """Find the most accurate model that meets the budget on this machine, measured, and write it to ``out``.

    Args:
        model: A Hugging Face folder or hub name of a supported family, or 'minilm-l6'.
        task: A named task, a path, or a mapping (see ``load_task``); or rows in memory (see ``as_task``).
        latency_ms: Upper limit of a call, in milliseconds: of the median, unless ``latency_statistic`` says otherwise.
        size_mb: Upper limit of the served file's size, in MB.
        max_drop: Upper limit of the loss in points against the fine-tuned model, or a teacher that limbeck opens.
        max_flips: Upper limit of the answers that differ from that model's, right or wrong, in per cent.
        confidence: How probable it must be, by the answers to validation, that ``max_drop`` and ``max_flips`` hold.
        latency_statistic: Which time of a call limit, choice and front are about.
        threads: Threads used for serving.
        batch: Texts in a call.
        seq_len: Tokens in a text; None for the real lengths of the task.
        candidates: Documents in a request of a reranker, whose latency is then that of a request.
        runtime: Runtime used for serving; 'auto' is OpenVINO if it is installed and faster in INT8 here, on a GPU
            ONNX Runtime.
        device: Where it serves: 'cpu', or 'cuda' or 'cuda:N' without INT8.
        precision: What exported models compute in on a GPU: 'float32' or 'float16'.
        target: Address of a measuring service on the machine that counts, in place of this one; needs ``profile``.
        profile: Latency data of that machine, made there by 'limbeck profile --full', for pruning and search.
        strategy: How smaller models are found: 'prune', 'search' (a super-network's best slices) or 'both'.
        effort: 'quick', 'standard' or 'thorough'; 'one-shot' trains nothing after the fine-tuning.
        seed: Seed of everything random.
        replicas: Train the chosen model with this many seeds in total.
        max_minutes: Leave out trainings that would end later, or whose result could not be chosen; models that need no
            training are made first.
        training: Epochs, learning rate, class weights, fewest steps and early stopping of the trainings.
        teacher: A model, a file of scores, or a function from texts to logits; None for the fine-tuned model.
        allow_weak_teacher: Continue with a teacher that was not shown to be better than the best constant answer.
        decision: What thresholds and a temperature are fitted for on validation; they become part of the artefact.
        out: Folder of the artefact; ``<run folder>/artefact`` unless given.
        folder: Folder of the run (recipe, ledger, report); ``runs/compress-<model>`` unless given. That one is refused
            where it holds a run of another model or task.
        store: Where finished work is kept.
        on_event: See ``run``.
        progress: See ``run``.
        executor: See ``run``.
    """
    budget = Budget(latency_ms, size_mb, max_drop, max_flips, confidence, latency_statistic)
    options = training or Training()
    request = CompressRequest(budget, strategy, effort, seed, replicas, "", options, allow_weak_teacher, None, decision)
    serving = Target(device, "onnxruntime", threads, batch, seq_len, candidates, target, precision)
    request = replace(request, profile=_profile_for(target, profile), max_minutes=max_minutes)
    work = _Compression(str(model), request, serving, runtime, folder, out, executor or ExecutorConfig())
    return work.taught_by(teacher).listened(task, store, on_event, progress)


def _profile_for(url: str | None, profile: str | Path | None) -> str | None:
    """Return the file of latency data for another machine, which needs one; this machine needs none."""
    if (url is None) == (profile is None):
        return None if profile is None else str(profile)
    if profile is None:
        raise InputError(
            f"target: pruning needs the latencies of many shapes on the machine at {url}; run 'limbeck profile --full "
            "--out machine.jsonl' there, copy the file, and give it as profile (--profile machine.jsonl)"
        )
    raise InputError(f"profile: latencies of another machine, {profile}, need target: its measuring service")


def _named_or_function(teacher: str | Path | TeacherFunction | None) -> tuple[str | None, TeacherFunction | None]:
    """Return the name or path of a teacher, or else its function."""
    if teacher is None or isinstance(teacher, (str, Path)):
        return None if teacher is None else str(teacher), None
    if not callable(teacher):
        raise InputError(f"teacher: expected a model's name, a path or a function, got {type(teacher).__name__}")
    return None, teacher


def _content(model: str) -> str:
    """Return what identifies a model's content."""
    return fingerprint(model_folder(model) or model)


@dataclass(frozen=True)
class _Compression:
    """One call of ``compress``: what to do, and where the results go."""

    model: str
    request: CompressRequest
    target: Target
    runtime: Runtime | Literal["auto"]
    folder: str | Path | None
    out: str | Path | None
    executor: ExecutorConfig
    function: TeacherFunction | None = None

    def taught_by(self, teacher: str | Path | TeacherFunction | None) -> _Compression:
        """Return the same work with a teacher, which may be a function."""
        named, function = _named_or_function(teacher)
        return replace(self, request=replace(self.request, teacher=named), function=function)

    def listened(
        self, task: Given, store: Store | str | Path | None, on_event: OnEvent | None, progress: bool | None
    ) -> Compressed:
        """Do the work while events are shown.

        Args:
            task: What the caller passed as the task.
            store: Where finished work is kept.
            on_event: Receives each event as a dictionary.
            progress: Whether to show progress; None for the default.
        """
        with listening(on_event, progress) as listener:
            return self.go(task, store, listener)

    def go(self, task: Given, store: Store | str | Path | None, listener: OnEvent) -> Compressed:
        """Check everything, measure what suits the machine, plan, run and write the artefact.

        Args:
            task: What the caller passed as the task.
            store: Where finished work is kept.
            listener: Receives each event as a dictionary.
        """
        from limbeck.data.given import names_task
        from limbeck.engine.tasks.loading import as_task

        began = monotonic()
        name, folder = self._name, user_path(self.folder) if self.folder else default_folder(self._name)
        out = user_path(self.out) if self.out else None
        wanted, store = self._checked(folder, out), Store.of(store)
        store.prepare()

        def note(message: str) -> None:
            listener({"kind": "note", "message": message})

        store.notify = note
        if has_no_labels(task):
            task = load_run_task(task, self.model, self.request.teacher, store, self._check_shared)
            loaded = fit_length(task, self.model)
        else:
            loaded = fit_length(as_task(task), self.model)
            self._check_shared(loaded)
        by_name = names_task(task)
        if (score := loaded.only_score_of("validation")) is not None:
            raise InputError(
                f"task {loaded.name}: all validation pairs have the score {score:g}, so no model is better than "
                "another; say what the vectors are good for with judge: FOLDER (--task-set judge=FOLDER), or give "
                "scored pairs for validation"
            )
        spec = str(folder / FOLDER) if not by_name else task if isinstance(task, Mapping) else str(task)
        request = replace(self.request, name=name)
        if self.function is not None:
            request = replace(request, teacher=str(folder / SCORES))
        planner = Planner(self.model, loaded, request, store)
        draft = planner.recipe(spec, wanted)
        checked_task(draft, store, loaded, self.function)  # reports what is wrong before anything is timed
        check_service(wanted)
        teacher: TeacherFunction | FunctionTeacher | None = self.function
        if request.teacher is not None:
            adapted, _ = adapt_task(draft, loaded, store)
            teacher = prepare_teacher(request.teacher, adapted, self.function, folder, note)
        if not by_name:
            keep_task(loaded, folder)
        announce(listener, loaded, self.model)
        target, linear = self._measured(loaded, store, linear=planner.may_linearize)
        whole = None
        if planner.needs_whole:
            whole = whole_latency(self.model, loaded, target, store, request.profile)
            note(f"the whole model takes {whole:.3g} ms in INT8, as predicted; goals that it meets are left out")
        recipe = planner.recipe(spec, target, linear, whole)
        if recipe != draft:
            checked_task(recipe, store, loaded, self.function)
        with open_workers(self.executor, folder) as workers:
            begun = start(recipe, loaded, store, folder, listener, teacher=teacher, workers=workers, began=began)
            result = begun.finish()
        return Compressed(result, deliver(result, out), budget_violations(result))

    def _checked(self, folder: Path, out: Path | None) -> Target:
        """Return the target to plan for; refuse options that are wrong for any task, and unsuitable folders."""
        self.request.check()
        self.executor.check(limited=self.request.max_minutes is not None)
        check_destinations(out, folder, (self.model, self.request.teacher))
        if self.runtime not in (valid := ("auto", "onnxruntime", "openvino", "tensorrt")):
            raise InputError(f"runtime: exported models do not run in '{self.runtime}'; {nearest(self.runtime, valid)}")
        check_values(self.target)
        if self.target.precision != "float32" and not self.target.on_gpu:
            raise InputError(
                f"precision: '{self.target.precision}' is for GPUs; on a processor INT8 is tried, so leave it out, or "
                "give device 'cuda'"
            )
        wanted = self._wanted  # refuses a runtime that does not run there
        if self.target.url is None:  # or that machine needs it
            check_runtime(self.runtime)
        return wanted

    @property
    def _name(self) -> str:
        return f"compress-{Path(self.model).name}"

    def _check_shared(self, task: Task) -> None:
        """Refuse the default folder if its newest run is of another model or task, whose artefact would be replaced."""
        folder = default_folder(self._name)
        if self.folder or self.out or not (run := Ledger(folder / "ledger.jsonl").newest_run()):
            return
        model, name = run["recipe"].get("model", self.model), run.get("task_name", task.name)
        if model != self.model and _content(model) != _content(self.model):
            other = f"the model '{model}'"
        elif name != task.name:
            other = f"the task '{name}'"
        else:
            return
        raise InputError(
            f"{folder} holds a run of {other}, whose artefact and report would be replaced; give this run a folder of "
            "its own (--folder DIR)"
        )

    @property
    def _wanted(self) -> Target:
        """The target with the runtime that the user wants; while that is open, with the usual one."""
        return self.target if self.runtime == "auto" else replace(self.target, runtime=self.runtime)

    def _measured(self, task: Task, store: Store, *, linear: bool) -> tuple[Target, str | None]:
        """Return the target with its runtime, and the attention core that is faster than softmax, if any.

        Choices that the user leaves open are timed on this machine. For another one they are the usual ones.

        Args:
            task: The task.
            store: Where finished work is kept.
            linear: Whether the recipe may replace the attention.
        """
        if self.target.url is not None or self.target.on_gpu:  # the dummy models that decide are in INT8
            return self._wanted, None
        case, (call, _) = Case.of(self.model, task, self.target), self.target.of_sub_batch()
        runtime = faster_runtime(case, call, store) if self.runtime == "auto" else self.runtime
        target, call = replace(self.target, runtime=runtime), replace(call, runtime=runtime)
        return target, faster_core(case, call, store) if linear else None
