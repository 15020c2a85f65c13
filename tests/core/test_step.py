from __future__ import annotations

import dataclasses

import pytest

from limbeck.core import step as steps
from limbeck.core.step import Choice, Probe, RestrictedContext, RunContext, Technique, find, parameters, step
from limbeck.errors import UndeclaredService


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(steps, "REGISTRY", {})
    return steps


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1


def test_step_makes_a_frozen_dataclass_with_its_facts(registry):
    @step("halve", needs={"torch"}, gives={"int8"}, reads={"seed"}, version=2)
    class Halve:
        keep: float = 0.5

        def apply(self, candidate, context):
            yield candidate

    assert registry.find("halve") is Halve
    assert (Halve.name, Halve.needs, Halve.gives, Halve.drops) == ("halve", {"torch"}, {"int8"}, frozenset())
    assert (Halve.reads, Halve.version) == ({"seed"}, 2)
    assert isinstance(Halve(), Technique)
    assert not isinstance(Halve(), (Probe, Choice))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Halve().keep = 0.1


def test_two_steps_cannot_share_a_name(registry):
    step("twice")(type("A", (), {}))
    with pytest.raises(AssertionError, match="two steps"):
        step("twice")(type("B", (), {}))


def test_unknown_traits_and_services_are_refused(registry):
    with pytest.raises(AssertionError, match="unknown trait"):
        step("odd", needs={"elasticc"})(type("A", (), {}))
    with pytest.raises(AssertionError, match="unknown service"):
        step("odd", reads={"weather"})(type("B", (), {}))


def test_find_names_the_nearest(registry):
    step("prune")(type("Prune", (), {}))
    with pytest.raises(KeyError, match="did you mean 'prune'"):
        find("prunne")


def test_narrow_lab_shows_only_what_is_declared():
    context = RestrictedContext(RunContext(seed=3), {"seed"}, "prune")
    assert context.seed == 3
    assert (context.keep("x", lambda folder: (folder / "a").write_text("1")) / "a").read_text() == "1"
    context.log("always allowed")
    with pytest.raises(UndeclaredService, match=r"'prune' used context\.target; add 'target'"):
        _ = context.target


def test_parameters_are_plain_values(registry):
    @step("nested")
    class Nested:
        inner: Inner = dataclasses.field(default_factory=Inner)
        names: tuple[str, ...] = ("a", "b")
        table: dict = dataclasses.field(default_factory=lambda: {1: (2, 3)})

    assert parameters(Nested()) == {"inner": {"rate": 0.1}, "names": ["a", "b"], "table": {"1": [2, 3]}}


def test_of_a_file_the_content_counts_not_the_name(registry, tmp_path):
    @step("reader")
    class Reader:
        source: str | None = None
        files = frozenset({"source"})

    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    for path in (first, second):
        path.write_text("one")
    same = [steps.identity(Reader(str(path))) for path in (first, second)]
    assert same[0] == same[1]
    second.write_text("other")
    assert steps.identity(Reader(str(second))) != same[0]
    assert steps.identity(Reader(str(tmp_path / "gone"))) == {"source": str(tmp_path / "gone")}
    assert steps.identity(Reader()) == {"source": None}


def test_of_a_folder_the_folders_inside_count_too(tmp_path):
    (tmp_path / "onnx").mkdir()
    seen = []
    for text in ("one", "other", "one"):
        (tmp_path / "onnx" / "model.onnx").write_text(text)
        seen.append(steps.content(str(tmp_path)))
    assert seen[0] == seen[2] != seen[1]
    (tmp_path / "onnx" / "model.onnx").rename(tmp_path / "model.onnx")
    assert steps.content(str(tmp_path)) not in seen
