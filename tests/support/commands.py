"""Calling the command line from tests, and what it leaves behind."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml

from limbeck.cli import main

TRAIN = ("--epochs", "40", "--learning-rate", "3e-3", "--evaluations-per-epoch", "0")


def call(*arguments, stdin=""):
    """The exit status of a command, its standard output and its standard error."""
    out, err = io.StringIO(), io.StringIO()
    raw = stdin if isinstance(stdin, bytes) else stdin.encode()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["limbeck", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw))),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code, out.getvalue(), err.getvalue()


def answer(*arguments, statuses=(0,), **options):
    """What a command prints with --json, having gone well."""
    status, out, err = call(*arguments, "--json", **options)
    assert status in statuses, out + err
    return json.loads(out)


def write_task(task, folder):
    folder.mkdir()
    for name, split in task.splits.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.DictWriter(stream, ["text", "pair", "label"] if split.pairs else ["text", "label"])
            rows.writeheader()
            rows.writerows({**row, "label": task.label_names[row["label"]]} for row in split.to_rows())


def write_retrieval(folder, topics=12, documents=4):
    """A retrieval task in BEIR's form: queries about one word each, and documents with it, the first ones relevant."""
    folder.mkdir(parents=True)
    corpus = [{"_id": f"{t}-{d}", "text": f"w{t} and part {d} of it"} for t in range(topics) for d in range(documents)]
    queries = [{"_id": str(topic), "text": f"about w{topic}"} for topic in range(topics)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    lines = [f"{topic}\t{topic}-{document}\t{2 - document}" for topic in range(topics) for document in range(2)]
    (folder / "qrels.tsv").write_text("\n".join(lines), encoding="utf-8")


def keys_of(step):
    events = map(json.loads, Path("run/ledger.jsonl").read_text().splitlines())
    records = [event["record"] for event in events if event["event"] == "record"]
    return [record["key"] for record in records if record["step"] == step]


def recipe(name, *steps, **more):
    Path(name).write_text(yaml.safe_dump({"model": "tuned", "task": "moods", **more, "steps": list(steps)}))
    return name
