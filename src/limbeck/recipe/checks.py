"""Check a recipe before anything runs: traits, the model's folder, the task's options and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from limbeck.core import early_exits
from limbeck.core.combination import Combination
from limbeck.core.field_groups import parameters
from limbeck.core.model import AnswersOnly
from limbeck.core.step import REGISTRY, TRAITS, Step, Technique, needs
from limbeck.core.target import Target
from limbeck.errors import InputError, LimbeckError, nearest
from limbeck.recipe.parsing import LocatedStep, leaves
from limbeck.recipe.targets import budget_path, path_of, settings, unknown_target
from limbeck.recipe.validation import Problem

if TYPE_CHECKING:
    from limbeck.core.task import Task
    from limbeck.core.task_kind import TaskKind


def meaning(
    values: Mapping[str, Any], placed: Sequence[LocatedStep], function: AnswersOnly | None = None
) -> list[Problem]:
    """Return the conflicts between the parts of a recipe, and the problems of the files they name.

    Args:
        values: The recipe, apart from its steps.
        placed: The steps.
        function: The teacher, if it is a function in memory: the file that the recipe names is yet to be written.
    """
    problems = []
    start = frozenset({"torch"})
    teacher, wrong = (function, []) if function is not None else _teacher(values.get("teacher"))
    problems += wrong
    for key in ("model", "teacher"):
        if (source := values.get(key)) and not (key == "teacher" and (teacher is not None or wrong)):
            described, wrong_model = _model(source, key)
            problems += wrong_model
            if key == "model":
                start = described.get("traits", start)
    if "task" in values:
        problems += _task(values["task"])
    always = frozenset({"teacher"} if values.get("teacher") else ())
    _walk(placed, {_State(start, epochs=False if always else None)}, always, problems)
    problems += _uncompared_limits(values, placed)
    for name, setting in settings(values).items():
        problems += _machine(setting.target, path_of(name), placed)
    problems += _precision(placed)
    problems += _lengths(values, placed)
    for located in leaves(placed):
        if located.parsed is None:
            continue
        where = f"{located.path}.{located.name}"
        problems += [Problem(where, text) for text in located.parsed.file_problems()]
        if teacher is not None:
            problems += [Problem(where, text) for text in located.parsed.teacher_problems(teacher)]
        problems += _unsuited(located.parsed, where, values, placed)
    return problems


def _unsuited(step: Step, where: str, values: Mapping[str, Any], placed: Sequence[LocatedStep]) -> list[Problem]:
    """Return what a step misses in the targets and their limits.

    A goal is for one target, which has to suit it. Other steps may be for some targets alone.

    Args:
        step: The step.
        where: Its location.
        values: The recipe, apart from its steps.
        placed: The steps.
    """
    all_settings, goal = settings(values), step.goal_target()
    if goal and goal not in all_settings:
        return [Problem(f"{where}.target", unknown_target(goal, all_settings))]
    setting = all_settings[goal or next(iter(all_settings))]
    problems = [Problem(where, text) for text in step.budget_problems(setting.budget)] if "budget" in values else []
    if "target" not in values:
        return problems
    others = [located.parsed for located in leaves(placed) if located.parsed is not None]
    counted = [setting] if goal is not None else list(all_settings.values())
    unsuited = [step.target_problems(each.target, others) for each in counted]
    if all(unsuited):
        problems += [Problem(".".join(filter(None, (where, name))), text) for name, text in unsuited[0].items()]
    return problems


def _machine(target: Target, path: str, placed: Sequence[LocatedStep]) -> list[Problem]:
    """Return what a target needs and this machine lacks: a device, a runtime.

    The runtime of a target elsewhere is needed here only by probes that its measuring service does not carry out.

    Args:
        target: The target.
        path: Its location in the recipe.
        placed: The steps.
    """
    backends = import_module("limbeck.measure.backends")
    problems = []
    infos = [located.cls.info for located in leaves(placed) if located.cls is not None]
    here = target.url is None or any(info.machine_bound and not info.at_target for info in infos)
    requirements = {"device": backends.check_device} | ({"runtime": backends.check_runtime} if here else {})
    for name, requirement in requirements.items():
        try:
            requirement(getattr(target, name))
        except LimbeckError as error:
            problems.append(Problem(f"{path}.{name}", str(error)))
    steps = [located for located in leaves(placed) if located.parsed is not None]
    exports = [located.name for located in steps if "onnx" in located.step.info.gives]
    if exports and not problems:
        try:
            import_module("limbeck.measure.accelerator").check_provider(target.runtime, target.device)
        except LimbeckError as error:
            problems.append(Problem(f"{path}.runtime", f"{exports[0]}: {error}"))
    return problems


def _precision(placed: Sequence[LocatedStep]) -> list[Problem]:
    """Return a problem for each step whose precision needs a GPU, where there is none."""
    steps = [located for located in leaves(placed) if located.parsed is not None]
    problems: list[Problem] = []
    if halves := [located for located in steps if parameters(located.step).get("mixed_precision") == "fp16"]:
        try:
            import_module("limbeck.measure.backends").check_device("cuda")
        except LimbeckError:
            text = "'fp16' is for training on a GPU, and there is none here; use 'auto', 'bf16' or 'no'"
            problems += [Problem(f"{located.path}.{located.name}.mixed_precision", text) for located in halves]
    return problems


def _lengths(values: Mapping[str, Any], placed: Sequence[LocatedStep]) -> list[Problem]:
    """Return a problem for text lengths in the recipe that a local model does not support."""
    model, spec = values.get("model"), values.get("task")
    tokens = spec.get("max_length") if isinstance(spec, Mapping) else None
    timed = [(f"{path_of(name)}.seq_len", setting.target.seq_len) for name, setting in settings(values).items()]
    problems = []
    for name, wanted in (("task.max_length", tokens), *timed):
        if not model or not isinstance(wanted, int) or _first_reads(placed, wanted):
            continue
        for source in filter(None, (model, values.get("teacher"))):
            most = _model(source, "model")[0].get("max_length")
            if most is not None and wanted > most:
                problems.append(Problem(name, f"is {wanted}, but '{source}' takes at most {most} tokens"))
    return problems


def next_traits(traits: frozenset[str], step: Step | type[Step]) -> frozenset[str]:
    """Return the traits of a step's result, from those of its input; of a class, those for any parameters."""
    return (traits - step.info.drops) | step.info.gives | (step.further_traits() if isinstance(step, Step) else set())


def absent_splits(placed: Sequence[LocatedStep], task: Task) -> list[Problem]:
    """Return a problem for each step that reads a split which the task does not have."""
    return [
        Problem(
            f"{located.path}.{located.name}.split", f"the task has no split '{split}'; {nearest(split, task.splits)}"
        )
        for located in leaves(placed)
        if located.parsed is not None
        for split in located.parsed.required_splits()
        if split not in task.splits
    ]


def unsuited_fields(placed: Sequence[LocatedStep], task: Task) -> list[Problem]:
    """Return a problem for each step, or field of it, that makes no sense for a task."""
    return [
        Problem(".".join(filter(None, (located.path, located.name, name))), reason)
        for located in leaves(placed)
        if located.parsed is not None
        for name, reason in located.parsed.task_problems(task).items()
    ]


def unsuited_limits(values: Mapping[str, Any], kind: TaskKind) -> list[Problem]:
    """Return a problem for each limit, or setting of a target, that has no meaning for a kind of task.

    Args:
        values: The recipe, apart from its steps.
        kind: Kind of the task.
    """
    problems = []
    for name, setting in settings(values).items():
        if setting.target.candidates is not None and not kind.grouped:
            reason = f"is for documents that are ranked for a query; this task is a {kind.name}; leave it out"
            problems.append(Problem(f"{path_of(name)}.candidates", reason))
        if setting.budget.max_flips is not None and kind.numeric:
            reason = "numbers always differ a little, so none can be flipped; give max_drop"
            problems.append(Problem(budget_path(name, values, "max_flips"), reason))
    return list(dict.fromkeys(problems))


def _uncompared_limits(values: Mapping[str, Any], placed: Sequence[LocatedStep]) -> list[Problem]:
    """Return a problem for each limit on what is lost against a model, where a recipe has none to compare with.

    Args:
        values: The recipe, apart from its steps.
        placed: The steps of the recipe.
    """
    if values.get("teacher") is not None or any(
        located.cls is None or "teacher" in located.cls.info.gives for located in leaves(placed)
    ):
        return []
    paths = [
        budget_path(name, values, limit)
        for name, setting in settings(values).items()
        for limit in ("max_drop", "max_flips")
        if getattr(setting.budget, limit) is not None
    ]
    text = f"there is no model to compare with; {_cure('teacher', {})}"
    return [Problem(path, text) for path in dict.fromkeys(paths)]


def check_lengths(
    model: str, teacher: str | None, task: Task, placed: Sequence[LocatedStep], seq_len: int | None = None
) -> None:
    """Refuse texts longer than a model has positions for, unless its first step extends it to that many.

    Args:
        model: Folder or hub name of the model.
        teacher: Folder or hub name of the teacher, if any.
        task: Its ``max_length`` is where texts are cut, in tokens.
        placed: The steps of the recipe.
        seq_len: Tokens of the timed texts; None for the real lengths.
    """
    wanted = max(task.max_length, seq_len or 0)
    sources = [] if _first_reads(placed, wanted) else [model]
    for source in [*sources, *filter(None, [teacher])]:
        check_length(source, task, seq_len)


def check_length(source: str, task: Task, seq_len: int | None = None) -> None:
    """Refuse texts longer than a model has positions for.

    Args:
        source: Folder or hub name of the model.
        task: Its ``max_length`` is where texts are cut, in tokens.
        seq_len: Tokens of the timed texts; None for the task's real lengths.

    Raises:
        InputError: They are longer; the message gives the limit.
    """
    wanted = task.max_length
    try:
        length = "vector_length" if task.task_kind.vectors else "max_length"
        most = import_module("limbeck.model.checkpoints").peek(source)[length]
    except InputError:
        return  # a hub name that cannot be looked up now: opening it reports why
    if wanted > most:
        raise InputError(
            f"the task has max_length {wanted}, but '{source}' takes at most {most} tokens; "
            f"give the task 'max_length: {most}' or less (--max-length {most})"
        )
    if seq_len is not None and seq_len > most:
        raise InputError(
            f"target.seq_len is {seq_len}, but '{source}' takes at most {most} tokens; give {most} or less"
        )


def _first_reads(placed: Sequence[LocatedStep], tokens: int) -> bool:
    """Return whether the first step on every path extends the model to this many tokens."""
    return _outcomes(placed, tokens) == {True}


def _outcomes(placed: Sequence[LocatedStep], tokens: int) -> set[bool | None]:
    """Return whether first steps support this many tokens; None stands for a path without steps."""
    outcomes: set[bool | None] = set()
    for located in placed:
        if located.branches is None:
            return outcomes | {located.parsed is not None and located.parsed.max_tokens() >= tokens}
        outcomes |= set().union(*(_outcomes(branch, tokens) for branch in located.branches))
        if None not in outcomes and located.branches:
            return outcomes
        outcomes.discard(None)
    return outcomes | {None}


def before_training(placed: Sequence[LocatedStep]) -> list[LocatedStep]:
    """Return the techniques, and probes of answers, that some path reaches before a head has been trained."""
    early: list[LocatedStep] = []
    _untrained(placed, early)
    return early


def trained_first(placed: Sequence[LocatedStep]) -> bool:
    """Return whether every path through the steps trains a head before its answers are used."""
    early: list[LocatedStep] = []
    return not _untrained(placed, early) and not early


def _untrained(placed: Sequence[LocatedStep], early: list[LocatedStep]) -> bool:
    """Return whether some path trains nothing; the techniques on such paths are added to ``found``."""
    for located in placed:
        if located.branches is not None:
            if not any([_untrained(branch, early) for branch in located.branches]):  # a list: every branch is walked
                return False
        elif located.cls is None:
            continue
        elif located.cls.info.trains:
            return False
        elif located.cls.info.judges or (isinstance(located.parsed, Technique) and not located.cls.info.headless):
            early.append(located)
    return True


@dataclass(frozen=True)
class _State:
    """Traits of a candidate at one point of the recipe, which step removed others, and what its teacher provides."""

    traits: frozenset[str]
    epochs: bool | None = None
    """Whether its teacher has the weights of every epoch; None if there is no teacher yet."""
    taken: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def _walk(
    placed: Sequence[LocatedStep], front: set[_State], always: frozenset[str], problems: list[Problem]
) -> set[_State]:
    for located in placed:
        if located.branches is not None:
            front = set().union(*(_walk(branch, front, always, problems) for branch in located.branches))
        elif located.cls is None:  # a step that could not be read may have given anything
            front = {_State(TRAITS - {"exits", "cascade", "fewer_tokens"}, epochs=True)}
        elif issubclass(located.cls, Combination):  # all stay, and it combines those that suit it
            suited = {state for state in front if _wanted(located) <= state.traits | always}
            front = front | {_step(located, state, always, problems) for state in suited or front}
        else:
            front = {_step(located, state, always, problems) for state in front}
    return front


def _wanted(located: LocatedStep) -> frozenset[str]:
    """Return the traits that a candidate needs for a step."""
    assert located.cls is not None
    return needs(located.parsed) if located.parsed is not None else frozenset(located.cls.info.needs)


def _step(located: LocatedStep, state: _State, always: frozenset[str], problems: list[Problem]) -> _State:
    assert located.cls is not None
    info, wanted = located.cls.info, _wanted(located)
    for trait in sorted(wanted - state.traits - always):
        problems.append(Problem(f"{located.path} {info.name}", f"needs '{trait}'; {_cure(trait, dict(state.taken))}"))
    if reason := early_exits.refusal(info, state.traits):
        problems.append(Problem(f"{located.path} {info.name}", reason))
    if located.parsed is not None:
        refused = (Problem(f"{located.path}.{info.name}", text) for text in located.parsed.trait_problems(state.traits))
        problems += [problem for problem in refused if problem not in problems]
    epochs = state.epochs
    if located.parsed is not None and epochs is not None:
        lacking = (
            Problem(f"{located.path}.{info.name}", text) for text in located.parsed.epoch_problems(epochs=epochs)
        )
        problems += [problem for problem in lacking if problem not in problems]
    if epochs is None and "teacher" in info.gives:  # the first one of a lineage stays the teacher
        epochs = located.parsed is None or located.parsed.keeps_epochs()
    removed = {trait: f"'{info.name}' ({located.path})" for trait in info.drops & state.traits}
    traits = next_traits(state.traits | wanted, located.parsed or located.cls)  # what it wants was reported once
    return _State(traits, epochs, tuple((dict(state.taken) | removed).items()))


def _cure(trait: str, taken: Mapping[str, str]) -> str:
    if trait in taken:
        return f"{taken[trait]} removes it; put this step before it"
    givers = sorted(name for name, cls in REGISTRY.items() if trait in cls.info.gives)
    if not givers:
        return "no step gives it"
    cure = f"put {' or '.join(repr(name) for name in givers)} before it"
    return f"{cure}, or name one as 'teacher'" if trait == "teacher" else cure


def _model(source: str, key: str) -> tuple[dict[str, Any], list[Problem]]:
    """Read the configuration file of a local model and list its problems; a hub name is not looked up."""
    try:
        return import_module("limbeck.model.checkpoints").peek_here(source) or {}, []
    except InputError as error:
        return {}, [Problem(key, str(error))]


def _teacher(source: str | None) -> tuple[AnswersOnly | None, list[Problem]]:
    """Describe a teacher that only gives answers, if it is on this machine, and list its problems."""
    try:
        return (import_module("limbeck.teachers.opening").describe(source, hub=False) if source else None), []
    except InputError as error:
        return None, [Problem("teacher", str(error))]


def _task(spec: str | Mapping[str, Any]) -> list[Problem]:
    """Return unknown options, missing files and unknown task names, without reading a row."""
    try:
        import_module("limbeck.data.loading").check_task(spec)
    except InputError as error:
        return [Problem("task", str(error))]
    return []
