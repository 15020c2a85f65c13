"""The page on serving tells the truth: its code runs in artefacts, and limbeck.json has the keys that it names."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from limbeck.data.encoding import TextEncoding

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
SINGLE, WINDOWS, WORDS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
laws = SimpleNamespace(**runpy.run_path(str(TESTS / "laws" / "test_encoding_laws.py")))
BLOCKED = "import sys\nfor name in ('torch', 'transformers', 'limbeck'):\n    sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    def write(kind, **settings):
        folder, task = tmp_path_factory.mktemp(kind), laws.odd_task(kind, 48)
        words = kind == "words"
        hub = laws.small.write_model(folder / "hub", "bert", task.label_names, per_token=words, **settings)
        return laws.artefact(hub, task, folder)[0]

    return write


def execute(text, folder):
    ran = subprocess.run(
        [sys.executable, "-c", BLOCKED + text], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_every_key_is_explained(artefact):
    shown = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    description = json.loads((artefact("single") / "limbeck.json").read_text())
    assert shown.keys() <= description.keys()
    assert set(shown["encoding"]) == set(description["encoding"]) == {each.name for each in fields(TextEncoding)}
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert rows == list(shown["encoding"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_text_and_windows_of_a_long_one(artefact, side):
    out = artefact("single", truncation_side=side)
    single, windows = execute(SINGLE + WINDOWS + "print([part.ids for part in (text, *text.overflowing)])\n", out)[:2]
    assert single in ("negative", "positive")
    count, label = windows.split()
    assert int(count) > 10
    assert label in ("negative", "positive")


def test_a_label_for_every_word(artefact):
    lines = execute(SINGLE.split("text = ")[0] + WORDS.replace("Oslo .", "Oslo \\u200b ."), artefact("words"))
    labels = json.loads(lines[-1].replace("'", '"'))
    assert len(labels) == 6
    assert labels[4] == "O"
