"""The technique and the metric that CONTRIBUTING shows work as they stand."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pages
from sklearn.metrics import cohen_kappa_score

from limbeck.core import metrics
from limbeck.core import step as steps
from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.data.synthetic import toy_task, toy_tokenizer

PAGE = (pages.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^   ```python\n(.*?)^   ```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_technique_in_the_guide(make_model, monkeypatch):
    monkeypatch.setattr(steps, "REGISTRY", dict(steps.REGISTRY))  # it is registered for this test alone
    block = BLOCKS[0]
    names: dict = {"__name__": __name__}  # dataclasses look the module up
    exec(compile(textwrap.dedent(block), "CONTRIBUTING.md", "exec"), names)
    step = names["FirstLayers"].of(**names["FirstLayers"].info.example)
    task = toy_task(train=8, validation=8, test=8)
    candidate = Candidate(make_model(labels=task.num_labels), toy_tokenizer(task), task)
    (child,) = step.apply(candidate, RunContext())
    assert child.model.shape.depth == 1
    assert steps.find("first_layers") is names["FirstLayers"]


def test_traits_and_services_are_all_named():
    (row,) = re.findall(r"^\| trait \| (.*) \|$", PAGE, re.MULTILINE)
    assert set(re.findall("`(.*?)`", row)) == steps.TRAITS
    page = (pages.ROOT / "docs" / "concepts" / "candidates.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", page.split("## Traits")[1])) >= steps.TRAITS
    (services,) = re.findall(r"services\s+that the step reads \((.*?)\)", page)
    assert set(services.split(", ")) == steps.SERVICES


def test_the_metric_in_the_guide(monkeypatch):
    monkeypatch.setattr(metrics, "METRICS", dict(metrics.METRICS))
    exec(compile(textwrap.dedent(BLOCKS[1]), "CONTRIBUTING.md", "exec"), dict(vars(metrics)))
    rng = np.random.default_rng(0)
    predictions, labels = rng.integers(0, 3, (2, 200))
    kappa = metrics.METRICS["cohen_kappa"]
    assert np.isclose(kappa(predictions, labels), cohen_kappa_score(labels, predictions))
    assert "cohen_kappa" in metrics.metrics_of("classification")
    assert not kappa.share
