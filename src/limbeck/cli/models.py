"""Commands on one model: evaluate, predict, and profile the machine it runs on."""

from __future__ import annotations

import json as _json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from limbeck.cli._frame import MODELS, Json, Runtime, app, console_of, print_json, refuse_fresh_head
from limbeck.core.target import Target
from limbeck.errors import InputError

MANY = Parameter(consume_multiple=True, negative_iterable=())


@app.command(group=MODELS)
def evaluate(
    model: str,
    *,
    task: str,
    split: str = "test",
    runtime: Runtime = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
    json: Json = False,
) -> None:
    """Answer a split one batch after another: quality, total and mean elapsed milliseconds.

    Parameters
    ----------
    model
        Folder of a model or an artefact.
    task
        A named task, or a file or folder with texts and labels.
    split
        Which split to answer.
    runtime
        Runtime of exported models; with torch, the float weights beside an exported model are run. A model that was
        not exported runs in torch.
    threads
        Threads of the runtime.
    batch
        Texts in a call.
    """
    from limbeck.data.sources import load_task
    from limbeck.measure.latency import evaluate as work
    from limbeck.model.files import open_model

    loaded = load_task(task)
    opened, tokenizer = open_model(model, task=loaded, runtime=runtime)
    refuse_fresh_head(opened, model)
    if runtime == "openvino" and opened.runtime == "torch":
        raise InputError(f"'{model}' has no ONNX file for OpenVINO; export it first, or say --runtime torch")
    found = asdict(work(opened, tokenizer, loaded, split, threads=threads, batch=batch, runtime=runtime))
    if json:
        print_json(found)
        return
    print(f"{found['metric']}: {found['quality']:.4f} [{found['low']:.4f}, {found['high']:.4f}], n {found['examples']}")
    how = f"{found['runtime']}, {threads} thread{'s' * (threads != 1)}, batch {batch}"
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
    from limbeck.engine.answers import answer

    given = list(texts) or [line.rstrip("\n") for line in sys.stdin]
    found = answer(model, given, pair)
    if json:
        print_json(found)
        return
    for row in found:
        print(f"{row['answer']}\t{row['text']}")


@app.command(group=MODELS)
def profile(*, out: Path | None = None) -> None:
    """Describe this machine as JSON: processor, libraries, measured arithmetic, noise.

    Parameters
    ----------
    out
        File to write instead of the screen.
    """
    from limbeck.measure.profile import profile as work

    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"there is no folder {out.parent}"))
    text = _json.dumps(work(), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _told(event: Mapping[str, Any]) -> None:
    """One line of progress."""
    print(f"{event['done'] + 1} of {event['total']}: {event['label']}, {event['format']}", file=sys.stderr)


@app.command(group=MODELS)
def bench(
    *,
    layers: Annotated[tuple[int, ...], MANY] = (),
    hidden: Annotated[tuple[int, ...], MANY] = (),
    miniatures: bool = False,
    attention_ratio: Annotated[tuple[float, ...], MANY] = (),
    attention_approach: Literal["head_num", "head_size_1", "head_size_2"] = "head_num",
    base: str = "bert-large-uncased",
    weight_shared: bool = False,
    runtime: Runtime = "onnxruntime",
    number_format: Annotated[tuple[Literal["float", "int8"], ...], MANY] = ("float",),
    seq_len: Annotated[tuple[int, ...], MANY] = (128,),
    task: str | None = None,
    batch: int = 1,
    threads: int = 1,
    device: str = "cpu",
    trials: int = 3,
    calls: int = 100,
    warmup_ratio: float = 0.1,
    id: str = "main",
    folder: Path | None = None,
    json: Json = False,
) -> None:
    """Time a grid of architectures, with random weights; trains nothing. Run again to go on after an interruption.

    Layers and attention ratios given together are taken in pairs, the first with the first. Every trial is a process
    of its own; all samples, a table and a page with pictures are written.

    Parameters
    ----------
    layers
        Numbers of layers of the base model.
    hidden
        Hidden widths of the base model; heads and neurons scale.
    miniatures
        The 24 BERT miniatures: 2 to 12 layers of 128 to 768.
    attention_ratio
        Shares of the base model's attention to keep.
    attention_approach
        What a share leaves: fewer heads, heads with their leading channels, or the leading channels split anew.
    base
        'bert-large-uncased', 'bert-base-uncased', or a model folder or hub name, of which the configuration is read.
    weight_shared
        Run every architecture as a slice of one super model (runtime torch).
    runtime
        What answers.
    number_format
        float, int8, or both.
    seq_len
        Tokens in a text; several give a figure each.
    task
        Take the lengths of this task's test texts instead, in turn.
    batch
        Texts in a call.
    threads
        Threads of a process.
    device
        cpu, or cuda:N with runtime torch.
    trials
        Processes for each architecture.
    calls
        Calls in each process.
    warmup_ratio
        Share of them, the first, that does not count.
    id
        Name of the bench.
    folder
        Where it is written [default: runs/bench-ID].
    """
    from limbeck.engine import bench_report
    from limbeck.engine.bench import bench as work
    from limbeck.engine.bench_plan import plan

    target = Target(device, runtime, threads, batch)
    spec = plan(
        base,
        {"layers": layers, "hidden": hidden, "miniatures": miniatures, "ratios": attention_ratio},
        attention_approach,
        target,
        formats=number_format,
        lengths=seq_len,
        task=task,
        shared=weight_shared,
        timing={"trials": trials, "calls": calls, "warmup_ratio": warmup_ratio},
    )
    place = folder or Path("runs") / f"bench-{id}"
    rows = work(spec, place, _told)
    page = place / "report.html"
    page.write_text(bench_report.report(rows, f"{base}, {target}"), encoding="utf-8")
    if json:
        print_json({"rows": [row.to_json() for row in rows], "folder": str(place)})
        return
    console_of().print(bench_report.table(rows))
    print(f"samples and table: {place}, pictures: {page}")
