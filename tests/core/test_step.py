from __future__ import annotations

import dataclasses

import pytest

from limbeck.core import step as steps
from limbeck.core.digests import content
from limbeck.core.field_groups import group, parameters
from limbeck.core.step import Choice, Probe, StepInfo, Technique, find, step
from limbeck.core.step_keys import identity


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(steps, "REGISTRY", {})
    return steps


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1


class Echo(Technique):
    def apply(self, candidate, context):
        yield candidate


def test_step_makes_a_frozen_dataclass_with_its_declaration(registry):
    @step(StepInfo("halve", needs={"torch"}, gives={"int8"}, reads={"seed"}, version=2))
    class Halve(Technique):
        keep: float = 0.5

        def apply(self, candidate, context):
            yield candidate

    info = Halve.info
    assert registry.find("halve") is Halve
    assert (info.name, info.needs, info.gives, info.drops) == ("halve", {"torch"}, {"int8"}, frozenset())
    assert (info.reads, info.version) == ({"seed"}, 2)
    assert isinstance(Halve(), Technique)
    assert not isinstance(Halve(), (Probe, Choice))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Halve().keep = 0.1


def test_two_steps_cannot_share_a_name(registry):
    step(StepInfo("twice"))(type("A", (Echo,), {}))
    with pytest.raises(ValueError, match="two steps are called 'twice'"):
        step(StepInfo("twice"))(type("B", (Echo,), {}))


def test_a_declaration_refuses_what_does_not_exist(registry):
    with pytest.raises(ValueError, match="step 'odd': no trait 'elasticc'; did you mean 'elastic'"):
        StepInfo("odd", needs={"elasticc"})
    with pytest.raises(ValueError, match="step 'odd': no service 'sed'; did you mean 'seed'"):
        StepInfo("odd", reads={"sed"})
    with pytest.raises(TypeError, match="evry_process"):
        StepInfo("odd", evry_process=True)


def test_a_declaration_names_fields_of_its_step(registry):
    @step(StepInfo("reader", files={"source"}))
    class Reader(Echo):
        source: str = ""

    with pytest.raises(ValueError, match="step 'writer': no field 'sourc'; did you mean 'source'"):

        @step(StepInfo("writer", files={"sourc"}))
        class Writer(Echo):
            source: str = ""

    with pytest.raises(ValueError, match="step 'writer': no field 'sourc'; did you mean 'source'"):

        @step(StepInfo("writer", sizes={"sourc"}))
        class Other(Echo):
            source: str = ""

    assert "writer" not in registry.REGISTRY


def test_a_step_is_one_of_the_three_verbs(registry):
    with pytest.raises(TypeError, match="step 'loose': inherit from Technique, Probe or Choice"):
        step(StepInfo("loose"))(type("Loose", (), {}))
    with pytest.raises(TypeError, match="apply"):
        step(StepInfo("empty"))(type("Empty", (Technique,), {}))()


def test_hooks_of_a_step_have_defaults(registry):
    plain = step(StepInfo("echo", needs={"torch"}))(type("Plain", (Echo,), {}))()
    assert steps.needs(plain) == {"torch"}
    assert (plain.problems(), plain.file_problems(), plain.required_splits()) == ([], [], ())
    assert plain.further_traits() == frozenset()
    assert (plain.shape_after("any shape"), plain.search_space("any shape")) == (None, None)
    assert (plain.rows_after({"train": 3}), plain.result_count(), plain.max_tokens()) == ({"train": 3}, 1, 0)


def test_find_names_the_nearest(registry):
    step(StepInfo("prune"))(type("Prune", (Echo,), {}))
    with pytest.raises(KeyError, match="did you mean 'prune'"):
        find("prunne")


def test_parameters_are_plain_values(registry):
    @step(StepInfo("nested"))
    class Nested(Echo):
        inner: Inner = dataclasses.field(default_factory=Inner)
        names: tuple[str, ...] = ("a", "b")
        table: dict = dataclasses.field(default_factory=lambda: {1: (2, 3)})

    assert parameters(Nested()) == {"inner": {"rate": 0.1}, "names": ["a", "b"], "table": {"1": [2, 3]}}


def test_a_step_has_groups_and_inherits_no_fields(registry):
    @step(StepInfo("learn", neutral={"rate"}))
    class Learn(Echo):
        inner: Inner = group(default=Inner(rate=0.2))
        keep: float = 1.0

    assert Learn.of(keep=0.5) == Learn(keep=0.5)
    assert Learn.of(rate=0.3) == Learn(Inner(0.3))
    assert (parameters(Learn()), identity(Learn())) == ({"rate": 0.2, "keep": 1.0}, {"keep": 1.0})
    with pytest.raises(TypeError, match="Learn has no field 'rte'; did you mean 'rate'"):
        Learn.of(rte=1)
    with pytest.raises(TypeError, match="Child inherits fields"):
        step(StepInfo("child"))(type("Child", (Learn,), {}))


def test_of_a_file_the_content_counts_not_the_name(registry, tmp_path):
    @step(StepInfo("reader", files={"source"}))
    class Reader(Echo):
        source: str | None = None

    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    for path in (first, second):
        path.write_text("one")
    same = [identity(Reader(str(path))) for path in (first, second)]
    assert same[0] == same[1]
    second.write_text("other")
    assert identity(Reader(str(second))) != same[0]
    assert identity(Reader(str(tmp_path / "gone"))) == {"source": str(tmp_path / "gone")}
    assert identity(Reader()) == {"source": None}


def test_of_a_folder_the_folders_inside_count_too(tmp_path):
    (tmp_path / "onnx").mkdir()
    seen = []
    for text in ("one", "other", "one"):
        (tmp_path / "onnx" / "model.onnx").write_text(text)
        seen.append(content(str(tmp_path)))
    assert seen[0] == seen[2] != seen[1]
    (tmp_path / "onnx" / "model.onnx").rename(tmp_path / "model.onnx")
    assert content(str(tmp_path)) not in seen
