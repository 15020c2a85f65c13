"""Commands on one model: evaluate and predict."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from limbeck.cli._app import MODELS, Json, Runtime, app, print_json, refuse_fresh_head
from limbeck.cli.task_options import TaskOptions, report_data
from limbeck.errors import InputError


@app.command(group=MODELS)
def evaluate(
    model: str,
    *,
    task: str,
    split: str | None = None,
    runtime: Runtime = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    json: Json = False,
) -> None:
    """Answer a split one batch after another: quality, total and mean elapsed milliseconds.

    Parameters
    ----------
    model
        Folder of a model or an artefact.
    task
        A named task, a file or folder with texts and labels, or a task file (YAML). All rows of a single file count.
    split
        Which split to answer [default: all rows of a single file, else test].
    runtime
        Runtime of exported models; with torch, the float weights beside an exported model are run. A model that was
        not exported runs in torch.
    threads
        Threads of the runtime.
    batch
        Texts in a call.
    """
    from limbeck.data.loading import load_judged
    from limbeck.measure.label_order import fit_task
    from limbeck.measure.latency import check_calls
    from limbeck.measure.latency import evaluate as work
    from limbeck.model.checkpoints import open_model
    from limbeck.recipe.checks import check_length

    check_calls(threads, batch)
    loaded, split = load_judged(data.of(task), split)
    check_length(model, loaded)
    report_data(loaded, model, (split,))
    fitted = fit_task(model, loaded)
    loaded = fitted.task
    opened, tokenizer = open_model(model, task=loaded, runtime=runtime)
    refuse_fresh_head(opened, model)
    if runtime == "openvino" and opened.runtime == "torch":
        raise InputError(f"'{model}' has no ONNX file for OpenVINO; export it first, or say --runtime torch")
    found = asdict(work(opened, tokenizer, loaded, split, threads=threads, batch=batch, runtime=runtime))
    if json:
        print_json(found | ({"notes": list(fitted.notes)} if fitted.notes else {}))
        return
    for note in fitted.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{found['metric']}: {found['quality']:.4f} [{found['low']:.4f}, {found['high']:.4f}], n {found['examples']}")
    for name, (value, low, high) in found["beside"].items():
        print(f"{name}: {value:.4g} [{low:.4g}, {high:.4g}]")
    how = f"{found['runtime']}, {threads} thread{'s' * (threads != 1)}, batch {batch}"
    if found["unseen_words"]:
        print(f"unseen_words: {found['unseen_words']} (cut off, or without a token; they count as the default label)")
    if found["depends_on_batch"]:
        print("note: INT8 answers depend on the batch; --batch 1 answers each text alone", file=sys.stderr)
    print(f"elapsed: {found['total_ms']:.1f} ms, {found['mean_ms']:.3f} ms on average ({how})")


@app.command(group=MODELS)
def predict(
    model: str,
    *texts: str,
    pair: Annotated[list[str] | None, Parameter(help="Second text of a pair, one for each text.")] = None,
    json: Json = False,
) -> None:
    """Answer texts given on the command line, or one a line on standard input.

    Parameters
    ----------
    model
        Folder of a fine-tuned model or an artefact.
    texts
        Texts to answer.
    """
    from limbeck.engine.predict import answer

    given = list(texts) or [line.rstrip("\n") for line in sys.stdin]
    found = answer(model, given, pair)
    if json:
        print_json(found)
        return
    for row in found:
        print(f"{row['answer']}\t{row['text']}")
    if unseen := sum(len(row.get("unseen", ())) for row in found):
        total = sum(len(row["labels"]) for row in found)
        print(
            f"note: {unseen} of {total} words were not seen (cut off, or dropped by the tokenizer); --json names them",
            file=sys.stderr,
        )
