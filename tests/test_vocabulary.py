"""The names of the code are the field's terms: a word that says only that something was found or made names nothing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "limbeck"
SUGGESTED = {
    "about": "what it says: metadata, facts",
    "agree": "all_gather_object",
    "agreeing": "barrier",
    "asked": "queries, requested",
    "asking": "q, query",
    "attended": "attention_output",
    "barren": "empty_generations",
    "born": "what begins: generation, start",
    "chance": "rng",
    "companion": "what is trained besides: co_trained",
    "crew": "worker_pool",
    "draw": "sample, index",
    "drawn": "sampled",
    "fed": "ffn_output",
    "follow": "what is done: schedule, auxiliary_losses",
    "forgiving": "isolate_failure",
    "found": "the thing itself: scores, path, record",
    "from_first": "broadcast_from_main",
    "globe": "global_scores",
    "gone": "removed",
    "grace": "timeout",
    "growth": "pipeline",
    "harms": "sensitivity",
    "hero": "headline_rows",
    "judge": "label_filter, evaluate",
    "kept": "retained, or the thing itself",
    "known": "the thing itself: recorded, names, description",
    "lab": "context",
    "leaked": "overlapping",
    "lesson": "training_run",
    "looks": "features",
    "made": "the thing itself: children, replicas, output",
    "mine": "student, own",
    "one": "the thing itself: first, left, record",
    "place": "index, path, position",
    "places": "indices, paths, positions",
    "said": "message, output",
    "school": "training",
    "settle": "resolve, finish",
    "sieve": "deduplicator",
    "slopes": "gradients",
    "story": "summary",
    "suspects": "outliers",
    "tell": "emit, log",
    "theirs": "teacher, reference, expected",
    "told": "message, events",
    "tutor": "teacher",
    "unmet": "budget_violations",
    "watching": "progress",
    "way": "mode, method",
    "waypoint": "epoch_checkpoint",
    "waypoints": "epoch_checkpoints",
    "whose": "identity",
    "workshop": "builder",
    "worth": "cost, value",
    "worth_keeping": "retained_keys",
}
"""Words that no variable, argument, attribute, function or class is named, and what might be meant."""
SUGGESTED_TYPES = {
    "Arranged": "ChannelOrder",
    "Bag": "WordDistribution",
    "Elastic": "SandwichLoss",
    "Guided": "GuidedLoss",
    "Imitation": "LayerDistillationConfig",
    "Narrow": "RestrictedContext",
    "Numbers": "Sizes, TensorWriter",
    "Order": "SortKey, RemovalOrder",
    "Orders": "RemovalOrders",
    "Origin": "Provenance",
    "PATIENCE": "TIMEOUT",
    "Parts": "Projections, GraphSource",
    "Pick": "Choice",
    "Placed": "LocatedStep",
    "PlainText": "PretrainingConfig",
    "Rule": "Transform, SamplingRule",
    "Sliced": "SupernetConfig",
    "Taken": "StepTaken",
    "Timed": "TimedShape",
    "Turn": "Pass",
}
"""Words that are terms as variables, and say nothing as the name of a type."""
EXCEPTIONS = {
    ("PLACES", "data/synthetic.py"): "cities, which a task of entities has to find",
    ("draw", "engine/notebook.py"): "paints the cell",
    ("draw", "engine/progress.py"): "paints the cell",
    ("judge", "cost_models/latency_table.py"): "a field of stored tables",
    ("judge", "data/config.py"): "an option of tasks",
    ("kept", "model/dropout.py"): "elements that dropout keeps",
    ("kept", "model/token_pruning.py"): "tokens that pruning keeps",
    ("one", "model/onnx/early_exits.py"): "the constant 1",
    ("one", "model/onnx/local_attention.py"): "the constant 1",
    ("unmet", "engine/planning/compress.py"): "the former name, which still answers",
}
"""Name and file: why it stays."""
PLAIN_TEXT = re.compile(r'"""(?s:.*?)"""|(?<![fF])"(?:\\.|[^"\\\n])*"|#.*')
"""Strings and comments, which bind nothing; names bound within an f-string count."""
WORD = re.compile(r"[^\W\d]\w*")


def suggestion(name):
    """What to call it instead; None if the name may stay."""
    return SUGGESTED.get(name.strip("_").lower()) or SUGGESTED_TYPES.get(name.strip("_"))


def may_bind(text):
    """Whether such a word stands in the code: only then is a file parsed, for that takes most of the time."""
    return any(map(suggestion, set(WORD.findall(PLAIN_TEXT.sub("", text)))))


def bindings(tree):
    """(name, line) of everything that a module binds."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname, node.lineno) for alias in names if alias.asname)


def faults(text, file):
    """A line for each name that should be another, and the exceptions met."""
    lines, met = [], set()
    for name, line in bindings(ast.parse(text)):
        if (words := suggestion(name)) is None:
            continue
        if (name, file) in EXCEPTIONS:
            met.add((name, file))
        else:
            lines.append(f"src/limbeck/{file}:{line}: {name}; better {words}")
    return lines, met


@pytest.mark.parametrize(
    "text",
    [
        "made = 1",
        "self._made: int = 1",
        "batch.place = 1",
        "a, (kept, *b) = c",
        "for place in x: pass",
        "[f(told) for told in x]",
        'f"{[place for place in x]}"',
        "def _told(): pass",
        "def f(*, asked=1): pass",
        "lambda mine: 1",
        "if found := f(): pass",
        "class Way: pass",
        "Order: TypeAlias = int",
        "import a as lab",
        "with f() as one: pass",
        "try: pass\nexcept E as known: pass",
    ],
)
def test_every_kind_of_binding_is_seen(text):
    lines, _ = faults(text, "x.py")
    assert len(lines) == 1
    assert may_bind(text)


@pytest.mark.parametrize("text", ["order = 1", "f(kept=1)", 'x = "made"', "x = y.found", "unknown = 1", "one_hot = 1"])
def test_other_names_may_stay(text):
    assert faults(text, "x.py") == ([], set())


def test_names_say_what_they_name():
    lines, met = [], set()
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if may_bind(text):
            other_lines, other_exceptions = faults(text, path.relative_to(ROOT).as_posix())
            lines += other_lines
            met |= other_exceptions
    assert not lines, "\n".join(lines)
    assert met == EXCEPTIONS.keys(), "exceptions that nothing needs any more"
