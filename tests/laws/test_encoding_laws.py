"""Law: the ids that were measured are the ids that are served, by the artefact's own example and by limbeck."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_tokenizers as small
import stories

from limbeck.core.task import Split, Task
from limbeck.data.batching import encode
from limbeck.engine.predict import answer
from limbeck.model.checkpoints import open_model, save_model
from limbeck.model.onnx.onnx_model import to_onnx
from limbeck.report.artefact import write_artefact

HERE = Path(__file__).parent

LONGEST = 48
SETTINGS = {
    "as usual": ({}, 64, LONGEST),
    "cut left, at the tokenizer's length": ({"truncation_side": "left", "model_max_length": LONGEST}, 64, 64),
    "no segment ids": ({"model_input_names": ["input_ids", "attention_mask"]}, 64, LONGEST),
    "no largest length, special tokens split": (
        {"model_max_length": None, "split_special_tokens": True}, LONGEST, LONGEST
    ),
    "segment ids whatever the model": (
        {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}, 64, LONGEST
    ),
}  # fmt: skip
"""Settings of the tokenizer, positions of the model, tokens of the task; all cut at LONGEST."""
KINDS = ("single", "pair", "words")
CASES = [
    (family, kind, list(SETTINGS)[(index + 2 * number) % len(SETTINGS)])
    for index, family in enumerate(small.FAMILIES)
    for number, kind in enumerate(KINDS)
] + [("bert", "pair", "no segment ids"), ("xlm-roberta", "pair", "segment ids whatever the model")]

DRIVER = """\
import json, sys
for name in ("torch", "transformers", "limbeck"):
    sys.modules[name] = None
code, answers, rows = open(sys.argv[1], encoding="utf-8").read(), [], []
head, body = code.split("# text\\n")
space = {"print": answers.append}
exec(head, space)
for given in json.load(open(sys.argv[2], encoding="utf-8")):
    space["given"] = given
    exec(body, space)
    rows.append([space["text"].ids, space["row"]["token_type_ids"], answers[-1]])
json.dump(rows, open(sys.argv[3], "w"), default=str)
"""


def odd_task(kind: str, max_length: int) -> Task:
    """A task of odd texts: classes of texts or pairs, or labels of words."""
    texts, labels = tuple(small.ODD), ("negative", "positive")
    if kind == "words":
        rows = tuple(tuple(text.split()) for text in (*texts, "word " * 900))
        split = Split(rows, tuple((0,) * len(row) for row in rows), None)
        return Task("odd", "tokens", {"train": split, "test": split}, ("O", "PER", "LOC"), "token_f1", max_length)
    pairs = tuple(reversed(texts)) if kind == "pair" else None
    split = Split(texts, tuple(row % 2 for row in range(len(texts))), pairs)
    return Task("odd", "classification", {"train": split, "test": split}, labels, "accuracy", max_length)


def artefact(hub: Path, task: Task, folder: Path) -> tuple[Path, object]:
    """An artefact of the model, exported as the store keeps it; and what measuring encodes."""
    model, tokenizer = open_model(hub, task=task)
    stored = folder / "stored"
    save_model(model, tokenizer, stored)
    (stored / "onnx").mkdir()
    to_onnx(model, stored / "onnx" / "model.onnx")
    config = json.loads((stored / "config.json").read_text())
    config |= {"limbeck_runtime": "onnxruntime", "limbeck_onnx_file": "onnx/model.onnx"}
    (stored / "config.json").write_text(json.dumps(config))
    first, again = (encode(task, "test", each) for each in (tokenizer, open_model(stored, task=task)[1]))
    assert first.input_ids == again.input_ids  # saving changes nothing
    return write_artefact(stories.run_summary(task=task), "qa", stored, folder / "artefact"), first


def followed(out: Path, inputs: list, folder: Path) -> list:
    """What the card's example makes of inputs: ids, segment ids and the answer of each."""
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    code = code.replace('"What a wonderful film."', "given[0]").replace('"Anna lives in Oslo .".split()', "given")
    code = code.replace('"The first text.", "The second text."', "given[0], given[1]")
    code = re.sub(r"^(?=words = given)|^(?=text = tokenizer\.encode\(given)", "# text\n", code, flags=re.MULTILINE)
    assert code.count("# text\n") == 1
    assert "given" in code
    names = [folder / name for name in ("driver.py", "example.py", "inputs.json", "rows.json")]
    for path, text in zip(names, (DRIVER, code, json.dumps(inputs)), strict=False):
        path.write_text(text, encoding="utf-8")
    ran = subprocess.run([sys.executable, *names], cwd=out, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(names[-1].read_text())


def answered(folder: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> tuple[list, object]:
    """The answers of ``limbeck predict`` to the task's texts, and the ids that it gave to the model."""
    from limbeck.data import batching as batches

    seen, real = [], batches.predict
    rows = task.split("test")
    texts = [" ".join(row) for row in rows.texts] if task.kind == "tokens" else rows.texts
    with monkeypatch.context() as patch:
        patch.setattr(batches, "predict", lambda model, encoded, *more: (seen.append(encoded), real(model, encoded))[1])
        answers = answer(folder, texts, rows.pairs)
    return answers, seen[0]


@pytest.mark.parametrize(("family", "kind", "setting"), CASES)
def test_served_ids_are_measured_ids(family, kind, setting, tmp_path, monkeypatch):
    settings, positions, length = SETTINGS[setting]
    task = odd_task(kind, length)
    hub = small.write_model(
        tmp_path / "hub", family, task.label_names, per_token=kind == "words", positions=positions, **settings
    )
    out, measured = artefact(hub, task, tmp_path)
    types = measured.token_type_ids or [[0] * len(ids) for ids in measured.input_ids]
    assert max(measured.lengths) == LONGEST
    rows = task.split("test")
    pairs = zip(rows.texts, rows.pairs or rows.texts, strict=True)
    inputs = [list(row) for row in (rows.texts if kind == "words" else pairs)]
    served = followed(out, inputs, tmp_path)
    assert [ids for ids, _, _ in served] == [list(ids) for ids in measured.input_ids]
    assert [ids for _, ids, _ in served] == [list(ids) for ids in types]
    answers, given = answered(out, task, monkeypatch)
    assert [list(ids) for ids in given.input_ids] == [list(ids) for ids in measured.input_ids]
    assert given.token_type_ids is None or given.token_type_ids == types
    other, _ = answered(hub, task, monkeypatch)
    field = "labels" if kind == "words" else "answer"
    assert [row[field] for row in answers] == [answer for _, _, answer in served]
    if length == LONGEST and positions > LONGEST:  # the plain folder has more room than the task
        whole = measured.lengths < LONGEST
        answers, other = (list(np.array(each)[whole]) for each in (answers, other))
    assert [row[field] for row in other] == [row[field] for row in answers]


@pytest.mark.parametrize("family", small.FAMILIES)
def test_a_word_that_holds_a_space_is_one_word(family, tmp_path):
    rows = (("Anna", "lives in", "New York", "."), ("10\u00a0000", "people"))
    split = Split(rows, tuple((0,) * len(row) for row in rows), None)
    task = Task("spaces", "tokens", {"train": split, "test": split}, ("O", "PER", "LOC"), "token_f1", LONGEST)
    hub = small.write_model(tmp_path / "hub", family, task.label_names, per_token=True, model_max_length=LONGEST)
    out, measured = artefact(hub, task, tmp_path)
    assert [len(positions) for positions in measured.first_pieces] == [len(row) for row in rows]
    assert [sum(label >= 0 for label in labels) for labels in measured.labels] == [len(row) for row in rows]
    served = followed(out, [list(row) for row in rows], tmp_path)
    assert [ids for ids, _, _ in served] == [list(ids) for ids in measured.input_ids]
    assert [len(labels) for _, _, labels in served] == [len(row) for row in rows]


@pytest.mark.parametrize("family", small.FAMILIES)
def test_a_label_for_every_word(family, tmp_path, monkeypatch):
    task = odd_task("words", LONGEST)
    hub = small.write_model(tmp_path / "hub", family, task.label_names, per_token=True, model_max_length=LONGEST)
    out, measured = artefact(hub, task, tmp_path)
    words = task.split("test").texts
    served = followed(out, [list(row) for row in words], tmp_path)
    for folder in (hub, out):
        answers, _ = answered(folder, task, monkeypatch)
        assert [len(row["labels"]) for row in answers] == [len(row) for row in words]
        assert [row["labels"] for row in answers] == [labels for _, _, labels in served]
        assert [len(row["unseen"]) for row in answers] == [len(row) for row in measured.unseen]
        assert all(row["labels"][index] == "O" for row in answers for index in row["unseen"])
    assert len(words[-1]) == 900
    assert 900 - LONGEST <= len(measured.unseen[-1]) < 900
    assert np.sum(np.array(measured.labels[-1]) >= 0) + len(measured.unseen[-1]) == 900
