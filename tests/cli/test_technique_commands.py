"""Commands of single techniques."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from commands import answer, call

from limbeck.core.step import StepInfo, Technique


def test_one_technique_after_another():
    pruned = answer("prune", "--model", "tuned", "--task", "moods", "--heads", 1, "--ffn", 16, "--out", "pruned")
    assert pruned["shape"] == "2x32 heads 1 of 16 ffn 16"
    train = ("--epochs", "1", "--evaluations-per-epoch", "0", "--match", "logits", "hidden")
    answer("distill", "--model", "pruned", "--teacher", "tuned", "--task", "moods", "--out", "student", *train)
    status, _, err = call("quantize", "--model", "student", "--task", "moods", "--out", "int8")
    assert status == 2
    assert "put 'export' before it" in err
    answer("export", "--model", "student", "--task", "moods", "--out", "exported", "--parity-texts", 8)
    answer("quantize", "--model", "exported", "--task", "moods", "--out", "int8")
    assert Path("int8/onnx/model_quantized.onnx").is_file()
    assert answer("evaluate", "int8", "--task", "moods")["runtime"] == "onnxruntime, model_quantized.onnx"


def test_a_technique_that_changes_the_task_writes_it():
    options = ("--model", "bert-moods", "--task", "moods", "--n-iter", 2)  # a head that nobody trained is no obstacle
    result = answer("augment", *options, "--out", "more")
    assert Path(result["task"]) == Path("more/task")
    assert len(Path("more/task/train.jsonl").read_text().splitlines()) > 150
    status, out, _ = call("augment", *options, "--out", "more-too")
    assert (status, "give it to --task" in out) == (0, True)
    assert Path("more-too/task/train.jsonl").read_bytes() == Path("more/task/train.jsonl").read_bytes()
    answer("finetune", "--model", "bert-moods", "--task", "more/task", "--out", "taught", "--epochs", 0.2)
    status, _, err = call("augment", *options[:4], "--guard", "drop", "--out", "never")
    assert (status, "needs a teacher" in err) == (1, True)
    status, _, err = call("augment", *options[:4], "--mlm", "bert", "--out", "never")
    assert (status, "mlm: has no effect with method: ngram, only with tinybert" in err) == (2, True)
    assert not Path("never").exists()


def test_every_winner_has_a_folder_and_every_shape_a_line():
    train = ("--epochs", 0.2, "--layers", 1, 2, "--heads", 1, 2, "--ffn", 8, 32)
    answer("supernet", "--model", "tuned", "--teacher", "tuned", "--task", "moods", "--out", "super", *train)
    options = ("--cost", "macs", "--keep", 0.9, "--at-least", 0.1, "--population", 4, "--generations", 1)
    command = ("search", "--model", "super", "--task", "moods", *options, "--samples", 8)
    several = answer(*command, "--winners", 2, "--out", "winners")
    assert [each["folder"] for each in several["candidates"]] == ["winners/1", "winners/2"]
    lines = list(csv.DictReader(Path("winners/shapes.csv").read_text().splitlines()))
    assert [line["shape"] for line in lines if line["winner"]] == [each["shape"] for each in several["candidates"]]
    assert len(lines) == 4
    assert answer("evaluate", "winners/2", "--task", "moods")["examples"] == 48
    status, out, _ = call(*command, "--out", "winner")
    assert (status, f"winner: {several['candidates'][0]['shape']}" in out, "winner/shapes.csv" in out) == (
        0,
        True,
        True,
    )
    assert Path("winner/config.json").is_file()


def test_kept_epochs_are_models():
    train = ("--epochs", 2, "--evaluations-per-epoch", 0, "--keep", "every_epoch")
    output = answer("finetune", "--model", "bert-moods", "--task", "moods", "--out", "epochs", *train)
    assert output["kept"] == "initial, epoch_001, epoch_002"
    last = [answer("evaluate", model, "--task", "moods")["quality"] for model in ("epochs", "epochs/epoch_002")]
    assert last[0] == last[1]
    status, _, err = call("evaluate", "epochs/initial", "--task", "moods")
    assert (status, "its training had not begun" in err) == (2, True)


def test_kept_steps_are_students():
    train = ("--epochs", 1, "--batch-size", 32, "--save-steps", 2, "--evaluations-per-epoch", 0)
    output = answer("distill", "--model", "tuned", "--teacher", "tuned", "--task", "moods", "--out", "steps", *train)
    assert output["kept"] == "step_000002"
    answer("finetune", "--model", "steps/step_000002", "--task", "moods", "--out", "on", "--epochs", 0.5)


def test_a_technique_refuses_before_it_works():
    status, _, err = call("prune", "--model", "tuned", "--task", "moods", "--keep", 1.5, "--out", "never")
    assert status == 2
    assert "should be in (0, 1], got 1.5" in err
    status, out, err = call("prune", "--model", "tuned", "--task", "moods", "--kep", 0.5, "--out", "never")
    assert (status, "Did you mean --keep?" in out + err) == (2, True)
    status, _, err = call("prune", "--model", "bert-moods", "--task", "moods", "--ffn", 16, "--out", "never")
    assert (status, "no trained head" in err) == (2, True)
    status, out, _ = call("prune", "--model", "tuned", "--task", "moods", "--heads", 7, "--out", "never", "--json")
    assert (status, len(json.loads(out)["failed"])) == (1, 1)
    assert not Path("never").exists()


def test_trackers():
    train = ("finetune", "--model", "bert-moods", "--task", "moods", "--epochs", "1", "--out", "tracked")
    status, _, err = call(*train, "--track", "nonsense")
    assert (status, "no tracker 'nonsense'" in err) == (2, True)
    if importlib.util.find_spec("tensorboard") is None:
        status, _, err = call(*train, "--track", "tensorboard")
        assert (status, "pip install tensorboard" in err) == (2, True)
        assert not Path("tracked").exists()
    else:
        assert call(*train, "--track", "tensorboard")[0] == 0
        assert list(Path("runs/tracking").rglob("events.out.tfevents*"))


@dataclass(frozen=True)
class Knobs(Technique):
    share: float = 0.5
    count: int = 1
    info: ClassVar[StepInfo] = StepInfo("knobs", presets={"wide": {"count": 7, "share": 1.0}})

    def apply(self, candidate, context):
        yield candidate


def test_a_preset_leaves_what_was_given():
    """On the command line as in a recipe: a field that was given wins, even with its usual value."""
    from cyclopts import App, Parameter

    from limbeck.cli.technique_commands import options_of

    kind, seen = options_of(Knobs), []

    def command(*, options=kind()):  # noqa: B008 frozen
        seen.append(options.given)

    command.__annotations__["options"] = Annotated[kind, Parameter(name="*")]
    app = App()
    app.default(command)
    for line in ("--preset wide --share 0.5", "--count 3", ""):
        app(line.split(), exit_on_error=False, result_action="return_value")
    assert seen == [{"share": 0.5, "preset": "wide"}, {"count": 3}, {}]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app(["--help"], exit_on_error=False, result_action="return_value")
    help_text = " ".join(re.sub(r"[^\w\s().:;,-]", " ", out.getvalue()).split())
    assert "wide (count 7, share 1.0)" in help_text
    assert "default: 0.5" in help_text


@pytest.mark.parametrize("name", ["finetune", "distill", "meta_pseudo_labels", "prune", "export", "quantize"])
def test_every_field_of_a_technique_has_a_help(name):
    import limbeck.techniques  # noqa: F401
    from limbeck.cli.technique_commands import field_helps
    from limbeck.core.field_groups import fields_of
    from limbeck.core.step import REGISTRY

    helps = field_helps(REGISTRY[name])
    assert set(helps) == {field.name for field in fields_of(REGISTRY[name])}
    assert all(text.endswith(".") for text in helps.values())
