"""The command on the machine: what it is and how fast, shape by shape."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from limbeck.cli._app import MODELS, Runtime, app
from limbeck.core.finite import json_text
from limbeck.errors import InputError

SEVERAL = Parameter(consume_multiple=True, negative_iterable=())
Steps = Annotated[tuple[int, ...] | None, SEVERAL]
Formats = Annotated[tuple[Literal["float", "int8"], ...], SEVERAL]


@dataclass(frozen=True)
class Full:
    """What a full profile covers.

    Attributes:
        model: Folder, hub name or 'minilm-l6': the largest shape, and what else decides the speed.
        layers: Range of the depth: LOW HIGH, or LOW HIGH STEP; up to the model's when not given, as the others.
        hidden: Range of the hidden width.
        heads: Range of the attention heads.
        ffn: Range of the feed-forward neurons.
        head_dim: Range of the width of a head.
        per_layer: Heads and neurons of every layer are free; otherwise all layers are alike.
        samples: Shapes to measure in each number format.
        number_format: Number formats to measure.
        runtime: Runtime of exported models.
        batch: Texts in a call.
        seq_len: Tokens in a text.
        seed: Decides which shapes.
    """

    model: str = "minilm-l6"
    layers: Steps = None
    hidden: Steps = None
    heads: Steps = None
    ffn: Steps = None
    head_dim: Steps = None
    per_layer: bool = True
    samples: int = 200
    number_format: Formats = ("float", "int8")
    runtime: Runtime = "onnxruntime"
    batch: int = 1
    seq_len: int = 32
    seed: int = 0


@app.command(group=MODELS)
def profile(
    *,
    out: Path | None = None,
    threads: int = 1,
    full: Annotated[bool, Parameter(negative=())] = False,
    options: Annotated[Full, Parameter(name="*")] = Full(),
) -> None:
    """Describe this machine as JSON: processor, libraries, measured arithmetic, noise.

    A full profile also measures latencies of many shapes and writes everything to one file of JSON lines, from which a
    search for this machine can run on another. It takes minutes to hours; interrupted, the same command goes on.

    Parameters
    ----------
    out
        File to write instead of the screen.
    threads
        Threads that multiply.
    full
        Measure the shapes of a space, in the file --out; the other options are about these.
    """
    from limbeck.cost_models.machine_profile import profile as work
    from limbeck.storage.destination import check_destination

    if threads < 1:
        raise InputError(f"threads should be at least 1, got {threads}")
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"there is no folder {out.parent}"))
    if out is not None:
        check_destination(out.parent, f"--out {out}: the folder", within=True)
    if full:
        _profile_full(out, threads, options)
        return
    if options != Full():
        changed = [name for name, value in asdict(options).items() if value != getattr(Full(), name)]
        raise InputError(f"--{changed[0].replace('_', '-')} is about a full profile; add --full")
    text = json_text(work(threads), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _profile_full(out: Path | None, threads: int, options: Full) -> None:
    if out is None:
        raise InputError("a full profile is written to a file; add --out machine.jsonl")
    if min(options.batch, options.seq_len) < 1:
        raise InputError(f"batch and seq_len should be at least 1, got {options.batch} and {options.seq_len}")
    from statistics import median

    from limbeck.core.analytic_cost import of_model
    from limbeck.core.measurement import machine
    from limbeck.core.target import Target
    from limbeck.cost_models.machine_profile import full as work
    from limbeck.cost_models.shape_sampling import STEPS, space_below
    from limbeck.measure.dummy_model import Setting, style_of
    from limbeck.model.checkpoints import open_model

    shape, style = of_model(open_model(options.model)[0])
    given = {name: getattr(options, name) for name in STEPS}
    space = space_below(shape, given, options.per_layer)
    target = Target("cpu", options.runtime, threads, options.batch, options.seq_len)
    formats = dict.fromkeys(options.number_format)
    settings = [Setting(style_of(style), target, number_format, options.seq_len) for number_format in formats]
    made = work(out, space, settings, samples=options.samples, seed=options.seed, on_event=_tell)
    for series in (made.of(setting, machine()) for setting in settings):
        repetition = f", repeated {100 * float(median(series.repetition)):.1f} %" if len(series.repetition) else ""
        print(
            f"{out}: {series.setting.number_format}, {len(series.shapes)} shapes from {1e3 * series.seconds.min():.3f} "
            f"to {1e3 * series.seconds.max():.3f} ms, noise {100 * series.noise:.1f} %{repetition}"
        )


def _tell(event: dict[str, Any]) -> None:
    """One line of progress on standard error."""
    setting = event.get("setting")
    what = f"{event['turn']} {setting.number_format if setting else ''}".strip()
    count = f": {event['done']} of {event['total']} shapes" if "total" in event else ""
    print(f"measuring {what}{count}", file=sys.stderr, flush=True)
