"""The technique that CONTRIBUTING shows works as it stands."""

from __future__ import annotations

import re
import textwrap

import pages

from limbeck.core import step as steps
from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.data.synthetic import toy_task, toy_tokenizer

PAGE = (pages.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_technique_in_the_guide(make_model, monkeypatch):
    monkeypatch.setattr(steps, "REGISTRY", dict(steps.REGISTRY))  # it is registered for this test alone
    (block,) = re.findall(r"^   ```python\n(.*?)^   ```", PAGE, re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": __name__}  # dataclasses look the module up
    exec(compile(textwrap.dedent(block), "CONTRIBUTING.md", "exec"), names)
    step = names["FirstLayers"].of(**names["FirstLayers"].info.example)
    task = toy_task(train=8, validation=8, test=8)
    candidate = Candidate(make_model(labels=task.num_labels), toy_tokenizer(task), task)
    (made,) = step.apply(candidate, RunContext())
    assert made.model.shape.depth == 1
    assert steps.find("first_layers") is names["FirstLayers"]
