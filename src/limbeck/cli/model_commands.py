"""Commands that use one model: evaluate and predict."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from limbeck.cli._app import Json, Runtime, print_json, refuse_fresh_head
from limbeck.cli.task_options import TaskOptions, report_data, task_or_texts
from limbeck.errors import InputError, shown

if TYPE_CHECKING:
    from limbeck.measure.evaluation import Evaluation

MAX_INPUT = 2**26
"""Bytes of standard input that are read."""


def evaluate(
    model: str,
    *,
    task: str | None = None,
    texts: Path | None = None,
    reference: str | None = None,
    split: str | None = None,
    runtime: Runtime = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    data: Annotated[TaskOptions, Parameter(name="*")] = TaskOptions(),  # noqa: B008 frozen
    json: Json = False,
) -> None:
    """Evaluate a model on a split, batch by batch: quality, and total and mean elapsed milliseconds.

    Args:
        model: Folder of a model or an artefact.
        task: A named task, a file or folder with texts and labels, or a task file (YAML). A single file is
            used whole.
        texts: A file of texts without labels, in place of a task: how far the model answers as the reference does, on
            the texts that a run on this file holds out.
        reference: The model whose answers to the texts count.
        split: Split to evaluate on [default: all rows of a single file, else test].
        runtime: Runtime of exported models; with torch, the float weights beside an exported model are run. A model
            that was not exported runs in torch.
        threads: Threads of the runtime.
        batch: Texts in a call; documents in a sub-batch of a request.
        data: Settings of the task's data.
        json: Print JSON.
    """
    from limbeck.engine.tasks.answered_texts import load_judged_texts
    from limbeck.engine.tasks.loading import load_judged
    from limbeck.engine.tasks.task_adaptation import served_length
    from limbeck.measure.evaluation import check_calls
    from limbeck.measure.evaluation import evaluate as evaluate_model
    from limbeck.measure.label_order import fit_task
    from limbeck.model.checkpoints import open_model
    from limbeck.recipe.checks import check_length

    check_calls(threads, batch)
    given = data.of(task_or_texts("evaluate", task, texts))
    if (texts is None) != (reference is None):
        raise InputError("evaluate: --texts and --reference belong together; give the model whose answers count")
    if reference is None:
        loaded, split = load_judged(given, split)
    else:
        loaded, split = load_judged_texts(given, reference, split, lambda text: print(f"note: {text}", file=sys.stderr))
    loaded = served_length(loaded, model, chosen="max_length" in data.changes())
    check_length(model, loaded)
    report_data(loaded, model, (split,))
    fitted = fit_task(model, loaded)
    loaded = fitted.task
    opened, tokenizer = open_model(model, task=loaded, runtime=runtime)
    refuse_fresh_head(opened, model)
    if runtime == "openvino" and opened.runtime == "torch":
        raise InputError(f"'{model}' has no ONNX file for OpenVINO; export it first, or use --runtime torch")
    result = evaluate_model(opened, tokenizer, loaded, split, threads=threads, batch=batch, runtime=runtime)
    if json:
        print_json(asdict(result) | ({"notes": list(fitted.notes)} if fitted.notes else {}))
        return
    for note in fitted.notes:
        print(f"note: {note}", file=sys.stderr)
    _print_evaluation(result, threads, batch)


def _print_evaluation(result: Evaluation, threads: int, batch: int) -> None:
    """Print the quality, its parts, and the times."""
    print(f"{result.metric}: {result.quality:.4f} [{result.low:.4f}, {result.high:.4f}], n {result.examples}")
    for name, (value, low, high) in result.beside.items():
        print(f"{name}: {value:.4g} [{low:.4g}, {high:.4g}]")
    for name, row in result.per_type.items():
        scores = ", ".join(f"{score} {row[score]:.4f}" for score in ("precision", "recall", "f1"))
        print(f"{name}: {scores}, n {row['examples']}")
    for name, row in result.stored.items():
        lost = f"loss {row['loss']:.4f} [{row['loss_low']:.4f}, {row['loss_high']:.4f}]"
        print(f"vectors as {name}, {row['bytes']} bytes: {row['metric']} {row['value']:.4f}, {lost}")
    setting = f"{result.runtime}, {threads} thread{'s' * (threads != 1)}, batch {batch}"
    if result.unseen_words:
        print(f"unseen_words: {result.unseen_words} (cut off, or without a token; they count as the default label)")
    if result.depends_on_batch:
        print("note: INT8 answers depend on the batch; --batch 1 answers each text alone", file=sys.stderr)
    print(f"elapsed: {result.total_ms:.1f} ms, {result.mean_ms:.3f} ms on average ({setting})")


def predict(  # noqa: DOC103 the command line's help needs the bare name
    model: str,
    *texts: str,
    pair: Annotated[
        list[str] | None,
        Parameter(help="Second text of a pair, for each text; or several for one text, as the documents of a query."),
    ] = None,
    aggregation_strategy: Literal["first", "simple"] = "first",
    prompt_name: str | None = None,
    json: Json = False,
) -> None:
    """Answer texts from the command line, or from standard input, one per line.

    An artefact with fitted thresholds answers by them; the band of a number stands beside it.

    Args:
        model: Folder of a fine-tuned model or an artefact.
        texts: Texts to answer.
        pair: Second texts.
        aggregation_strategy: Entities take their tags from the first token of each word, or each token has its own.
        prompt_name: Prompt of an embedding model to put before each text, such as 'query'; else its default prompt.
        json: Print JSON.
    """
    from limbeck.core.kinds.regression import name_of_band
    from limbeck.engine.predict import answer

    inputs = list(texts) or _standard_input()
    for text in (*inputs, *(pair or ())):
        _check_encoding(text)
    answers = answer(model, inputs, pair, aggregation=aggregation_strategy, prompt_name=prompt_name)
    if json:
        print_json(answers)
        return
    for row in sorted(answers, key=lambda row: row.get("rank", 0)) if len(set(inputs)) == 1 else answers:
        band = [] if "band" not in row else ["-" if row["band"] is None else name_of_band(row["band"])]
        shown_text = row["pair"] if "rank" in row or (pair and len(inputs) == 1) else row["text"]
        print("\t".join([str(row["answer"]), *band, shown_text]))
    if unseen := sum(len(row.get("unseen", ())) for row in answers):
        total = sum(len(row["labels"]) for row in answers)
        print(
            f"note: {unseen} of {total} words were not seen (cut off, or dropped by the tokenizer); --json names them",
            file=sys.stderr,
        )


def _standard_input() -> list[str]:
    """Read the lines of standard input."""
    raw = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(raw) > MAX_INPUT:
        raise InputError(f"standard input has more than {MAX_INPUT:,} bytes; answer it in parts")
    for number, line in enumerate(raw.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"standard input, line {number}: byte {error.start} is not UTF-8") from None
    return [line.removesuffix("\r") for line in raw.decode("utf-8-sig").removesuffix("\n").split("\n")] if raw else []


def _check_encoding(text: str) -> None:
    """Refuse an argument that was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"this text is not UTF-8: {shown(text)}") from None
