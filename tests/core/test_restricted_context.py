from __future__ import annotations

import pytest

from limbeck.core.restricted_context import RestrictedContext
from limbeck.core.step import RunContext, StepInfo
from limbeck.errors import UndeclaredService


def test_a_restricted_context_shows_only_what_is_declared():
    context = RestrictedContext(RunContext(seed=3), StepInfo("prune", reads={"seed"}))
    assert context.seed == 3
    assert (context.keep("x", lambda folder: (folder / "a").write_text("1")) / "a").read_text() == "1"
    context.log("always allowed")
    with pytest.raises(UndeclaredService, match=r"'prune' used context\.target; add 'target'"):
        _ = context.target
