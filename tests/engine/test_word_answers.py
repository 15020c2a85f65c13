"""Entities of strings: as the pipeline of transformers finds them, as the artefact's example prints them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers

from limbeck.core.task import Split, Task
from limbeck.engine.predict import answer

TESTS = Path(__file__).parent.parent
laws = SimpleNamespace(**runpy.run_path(str(TESTS / "laws" / "test_encoding_laws.py")))
LENGTH = 24
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
TEXTS = (
    "Anna Smith lives in Oslo .",
    "in",
    "Unbelievably, Rottweilers don't reminisce!",
    "Anna met Ben and Carla in the old town of Bergen where they live " * 3 + "now",
)
BLOCKED = "import sys\nfor name in ('torch', 'transformers', 'limbeck'):\n    sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model with random weights, which finds entities everywhere, and its artefact."""
    folder = tmp_path_factory.mktemp("entities")
    split = Split((("a", "b"),), ((1, 2),), None)
    task = Task("words", "tokens", {"train": split, "test": split}, LABELS, "entity_f1", LENGTH)
    hub = laws.small.write_model(folder / "hub", "bert", LABELS, per_token=True, model_max_length=LENGTH)
    return hub, laws.artefact(hub, task, folder)[0]


def spans(row):
    return [(entity["type"], entity["start"], entity["end"]) for entity in row["entities"]]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", ["first", "simple"])
def test_entities_are_those_of_the_pipeline(folders, strategy):
    for folder in folders:
        model = transformers.AutoModelForTokenClassification.from_pretrained(folder, trust_remote_code=True)
        pipeline = transformers.pipeline(
            "token-classification",
            model=model,
            tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
            aggregation_strategy=strategy,
            stride=LENGTH // 4,
        )
        rows = answer(folder, TEXTS, aggregation=strategy)
        assert sum(len(row["entities"]) for row in rows) > 10
        for text, row in zip(TEXTS, rows, strict=True):
            expected = pipeline(text)
            assert spans(row) == [(each["entity_group"], each["start"], each["end"]) for each in expected]
            assert [each["score"] for each in row["entities"]] == pytest.approx(
                [float(each["score"]) for each in expected], abs=1e-4
            )
            assert all(each["text"] == text[each["start"] : each["end"]] for each in row["entities"])


def test_the_example_prints_the_same_entities_with_offsets(folders):
    _, out = folders
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert code.count('"Anna lives in Oslo ."') == 1
    head, body = code.split("string, length = ")
    text = BLOCKED + head
    for string in TEXTS:
        text += "string, length = " + body.replace('"Anna lives in Oslo ."', repr(string)) + "print('--')\n"
    ran = subprocess.run(
        [sys.executable, "-c", text], cwd=out, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    printed = [part.strip("\n").split("\n") for part in ran.stdout.split("--\n")[:-1]]
    for row, lines in zip(answer(out, TEXTS), printed, strict=True):
        assert [f"{each['type']} {each['start']} {each['end']} {each['text']}" for each in row["entities"]] == [
            line for line in lines if line
        ]


def test_every_word_of_a_long_text_has_a_label(folders):
    text = "  \u200b ".join(TEXTS)
    (row,) = answer(folders[0], [text])
    words = text.split()
    assert len(row["labels"]) == len(words)
    assert [words[index] for index in row["unseen"]] == ["\u200b"] * 3
    assert answer(folders[0], [""])[0]["answer"] == "no entities"
