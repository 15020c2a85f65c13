"""Keys of finished work: with default fields they are those under which users' stores hold results already."""

from __future__ import annotations

import hashlib
import json

import pytest

import limbeck.techniques  # noqa: F401 registers the steps
from limbeck.core.step import find
from limbeck.core.step_keys import identity

GOLDEN = {
    "finetune": (4, "ef7bfdb6170eb08b"),
    "distill": (5, "8e6567cc0c022610"),
    "prune": (6, "06c1e24db29223e0"),
    "quantize": (3, "69eda4098b956e8c"),
    "export": (2, "37bb2364a52f8feb"),
    "augment": (3, "163d37c2b9426a74"),
}
"""Version and digest of the identity with default fields. Where a result changes for the same fields, the version and
its line here change together; where a field is added, list it as ``added`` and leave the digest."""

FORMER_DEFAULTS = {"finetune": {"mixed_precision": "no"}, "distill": {"mixed_precision": "no"}}
"""Fields whose default has changed since the digests were taken, with what it was: results stored under it are found
where a recipe says so."""


def digest(step):
    return hashlib.sha256(json.dumps(identity(step), sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_identity_of_a_step_with_default_fields_stays(name):
    step = find(name).of(**FORMER_DEFAULTS.get(name, {}))
    assert (step.info.version, digest(step)) == GOLDEN[name]


def test_a_former_default_is_no_longer_the_default():
    for name in FORMER_DEFAULTS:
        assert digest(find(name)()) != GOLDEN[name][1]


def test_added_fields_enter_the_identity_when_they_are_set():
    for field, value in {"min_steps": 300, "early_stopping_patience": 2, "class_weights": "balanced"}.items():
        step = find("finetune").of(**FORMER_DEFAULTS["finetune"], **{field: value})
        assert digest(step) != GOLDEN["finetune"][1]


def test_a_limit_of_quantize_marks_results_that_are_others_than_before():
    quantize = find("quantize")
    assert "fall_back" not in identity(quantize(smooth=True))
    assert identity(quantize(max_drop=1.0))["fall_back"] == "paired, exact bound"


@pytest.mark.parametrize(
    ("name", "former"),
    [
        ("student_init", "student"),
        ("weight_sharing", "share"),
        ("pretrain_distill", "general_distill"),
        ("pretrain_supernet", "general_supernet"),
    ],
)
def test_a_renamed_step_is_found_and_keyed_under_its_former_name(name, former):
    assert find(former) is find(name)
    assert find(name).info.key_name == former
