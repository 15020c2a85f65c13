"""The artefact: a Hugging Face folder with the ONNX file, a card with its figures, and a description for programs.

It runs with onnxruntime and tokenizers alone. The card's example is code that a test executes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.finite import json_text
from limbeck.core.measurement import Measurement
from limbeck.core.outputs import OutputKind, OutputSpec, answer_code
from limbeck.data.encoding import TaskTokenizer, TextEncoding, default_label
from limbeck.errors import InputError
from limbeck.model.checkpoints import open_tokenizer
from limbeck.model.interchange import translate_folder
from limbeck.report.display_names import told
from limbeck.report.report import headline, milliseconds, page_environment, quality, quality_interval, slim
from limbeck.report.summary import RunSummary
from limbeck.report.table import Row, rows
from limbeck.storage.destination import check_destination, whole_folder

DESCRIPTION = "limbeck.json"
ONNX_FILES = ("onnx/model_quantized.onnx", "onnx/model.onnx")
"""Where the ecosystem looks; the first that is there is served."""
PATTERNS = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "onnx/*.onnx*", "*.py", "*.jinja",
    "tokenizer*.json", "tokenizer*.model", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "sentencepiece*.model", "spiece.model",
)  # fmt: skip
"""What belongs to a model; the store's own files beside it (rows of the task, cards, checkpoints) stay behind."""

OPEN = """\
import json, numpy, {runtime}, tokenizers

about = json.load(open("limbeck.json", encoding="utf-8"))
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")  # cuts texts as they were cut when measured
tokenizer.encode_special_tokens = about["encoding"]["split_special_tokens"]
{session}

{text}
row = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}
logits = {call}{{name: numpy.array([row[name]], dtype="int64") for name in about["inputs"]}})[0][0]
{seen}print({answer})
"""

SEEN = "seen = dict((word, row) for word, row in reversed(list(zip({word_ids}, logits))) if word is not None)\n"
"""The logits of the first token of every word; words that were cut off have none."""

SESSIONS = {
    "onnxruntime": (
        """\
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = COUNT
session = onnxruntime.InferenceSession(about["onnx_file"], options, providers=["CPUExecutionProvider"])""",
        "session.run(None, ",
    ),
    "openvino": (
        """\
options = {"INFERENCE_NUM_THREADS": COUNT, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
model = openvino.compile_model(about["onnx_file"], "CPU", options)""",
        "model(",
    ),
}
"""How a runtime opens the file, and how it is called."""

OPEN_TORCH = """\
import torch, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(".")
model = transformers.{auto}.from_pretrained(".", trust_remote_code=True).eval()
{text}
with torch.inference_mode():
    logits = model(**text).logits[0].numpy()
labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
{seen}print({answer})
"""


def example(
    kind: OutputKind, *, pair: bool = False, runtime: str = "onnxruntime", threads: int = 1, max_length: int = 128
) -> str:
    """Write code of some 15 lines that answers one text in the artefact's folder.

    Args:
        kind: What the outputs mean.
        pair: Whether a text comes with a second one.
        runtime: 'onnxruntime', 'openvino' or 'torch'.
        threads: Threads of the runtime.
        max_length: Tokens after which torch's tokenizer cuts; the others read it from the folder.
    """
    words = kind == "tokens"
    sample = '"The first text.", "The second text."' if pair else '"What a wonderful film."'
    if words:
        sample = "words"
    prefix = 'words = "Anna lives in Oslo .".split()\n' if words else ""
    if runtime in SESSIONS:
        session, call = SESSIONS[runtime]
        return OPEN.format(
            runtime=runtime,
            session=session.replace("COUNT", str(threads)),
            call=call,
            text=f"{prefix}text = tokenizer.encode({sample}{', is_pretokenized=True' if words else ''})",
            seen=SEEN.format(word_ids="text.word_ids") if words else "",
            answer=answer_code(kind, 'about["labels"]', 'about["default_label"]'),
        )
    auto = "AutoModelForTokenClassification" if words else "AutoModelForSequenceClassification"
    split = f"{', is_split_into_words=True' if words else ''}, truncation=True, max_length={max_length}"
    return OPEN_TORCH.format(
        auto=auto,
        text=f'{prefix}text = tokenizer({sample}{split}, return_tensors="pt")',
        seen=SEEN.format(word_ids="text.word_ids()") if words else "",
        answer=answer_code(kind, "labels", 'labels.index("O") if "O" in labels else 0'),
    )


def artefact_example(summary: RunSummary, folder: Path) -> str:
    """The example for the model in ``folder``, as its card shows it and as the report should."""
    return example(
        summary.task.kind,
        pair=is_pair(summary.task),
        runtime=runtime_of(summary, folder),
        threads=summary.target.threads,
        max_length=summary.task.max_length,
    )


def runtime_of(summary: RunSummary, folder: Path) -> str:
    """Where the model in ``folder`` was measured; an ONNX file runs in ONNX Runtime also if the target says torch."""
    if onnx_file(folder) is None:
        return "torch"
    return "openvino" if summary.target.runtime == "openvino" else "onnxruntime"


def is_pair(task: Any) -> bool:
    """Whether the task's examples are pairs of texts."""
    return any(getattr(split, "pairs", None) is not None for split in task.splits.values())


def onnx_file(folder: Path) -> str | None:
    """The ONNX file that a folder serves, relative to it."""
    return next((name for name in ONNX_FILES if (folder / name).is_file()), None)


def write_artefact(summary: RunSummary, key: str, model_folder: Path, out: Path) -> Path:
    """Copy a stored model to ``out`` and add its card and description.

    ``out`` must be new, empty, or an earlier artefact (which is replaced at once; files in it that limbeck did not
    write are kept). ``summary.task`` says what the model answers. Returns ``out``.
    """
    model_folder, out = Path(model_folder), Path(out)
    check_source(model_folder)
    check_out(out, model_folder)
    out = out.resolve()
    with whole_folder(out) as draft:
        for path in _model_files(model_folder):
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model_folder / path, draft / path)
        encoding = encoding_of(summary, model_folder)
        translate_folder(draft)
        bake_tokenizer(draft, encoding, open_tokenizer(model_folder))
        (draft / "README.md").write_text(card(summary, key, model_folder), encoding="utf-8")
        files = sorted([*_files(draft), DESCRIPTION])
        description = {**describe(summary, key, model_folder), "files": files}
        text = json_text(description, indent=2, default=str) + "\n"
        (draft / DESCRIPTION).write_text(text, encoding="utf-8")
        keep_foreign(out, draft)
    return out


def check_source(folder: Path) -> None:
    """Refuse a folder that is no complete model before anything is written."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} is no model that can be served: it has no {name}; save it with save_model first"
            )
    if onnx_file(folder) is None and not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder} has no weights; expected model.safetensors or one of {', '.join(ONNX_FILES)}")


def check_out(out: Path, model_folder: Path | None = None) -> None:
    """Refuse to write over what is not limbeck's; callers may ask this before hours of training."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder that is new or empty")
    if model_folder is not None and (
        out.resolve() == model_folder.resolve() or model_folder.resolve() in out.resolve().parents
    ):
        raise InputError(f"--out {out} lies in the model's own folder {model_folder}; name another")
    if out.is_dir() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        seen = ", ".join(sorted(path.name for path in out.iterdir())[:3])
        raise InputError(
            f"--out {out} is not empty and no earlier artefact (it has {seen}, but no {DESCRIPTION}); "
            f"name a new folder, for example {out}-artefact"
        )
    check_destination(out)


def describe(summary: RunSummary, key: str, model_folder: Path) -> dict[str, Any]:
    """What a program needs to serve the artefact, and what a person may ask later."""
    task, record = summary.task, summary.records[key]
    outputs = OutputSpec.for_task(task.kind, task.label_names)
    file = onnx_file(model_folder)
    return {
        "format": 1,
        "task": task.name,
        "kind": outputs.kind,
        "problem_type": outputs.problem_type,
        "runtime": runtime_of(summary, model_folder),
        "onnx_file": file,
        "inputs": graph_inputs(model_folder / file) if file else ["input_ids", "attention_mask", "token_type_ids"],
        "max_length": task.max_length,
        "pair": is_pair(task),
        "labels": list(outputs.labels),
        "default_label": default_label(outputs.labels),
        "encoding": encoding_of(summary, model_folder).to_json(),
        "metrics": [slim(fact) for fact in record.facts],
        "target": str(summary.target),
        "machine": dict(summary.environment),
        "seeds": list(summary.seeds),
        "recipe": str(summary.recipe),
        "shape": record.shape.to_json() if record.shape is not None else None,
        "key": key,
        "lineage": [entry.key for entry in summary.lineage(key)],
        "steps": [{"step": entry.step, "parameters": dict(entry.parameters)} for entry in summary.lineage(key)],
    }


def encoding_of(summary: RunSummary, model_folder: Path) -> TextEncoding:
    """Say how the texts of the run's task became the ids that were measured."""
    return TextEncoding.of(open_tokenizer(model_folder), summary.task.max_length, words=summary.task.kind == "tokens")


def bake_tokenizer(folder: Path, encoding: TextEncoding, tokenizer: TaskTokenizer) -> None:
    """Write into a folder's tokenizer files what they can say of an encoding, so that all programs give its ids.

    Args:
        folder: The artefact.
        encoding: How texts became the ids that were measured.
        tokenizer: What measured them; its class may have changed what the model's ``tokenizer.json`` says.
    """
    path = folder / "tokenizer.json"
    path.write_text(encoding.bake(tokenizer.backend_tokenizer.to_str()), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings |= {"model_max_length": encoding.max_length, "truncation_side": encoding.truncation_side}
    settings["split_special_tokens"] = encoding.split_special_tokens
    settings |= {"add_prefix_space": True} if encoding.words else {}
    settings |= {} if encoding.token_type_ids else {"model_input_names": ["input_ids", "attention_mask"]}
    settings.pop("auto_map", None)  # nobody is to be asked whether to run code
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def graph_inputs(path: Path) -> list[str]:
    """Names of the graph's inputs; the weights are not read."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]


def card(summary: RunSummary, key: str, model_folder: Path) -> str:
    """The model card: front matter for the hub, the measured figures with machine and interval, how to run it."""
    from markupsafe import Markup

    made = rows(summary)
    row = next(row for row in made if row.key == key)
    teacher = next((other for other in made if other.teacher and other.key != key), None)
    environment = page_environment().overlay(autoescape=False)
    environment.filters["cell"] = cell
    return environment.get_template("card.md.j2").render(
        front_matter=Markup(front_matter(summary, key, model_folder)),
        summary=summary,
        row=row,
        teacher=teacher,
        headline=headline(summary) if key in summary.chosen[:1] else row.name,
        figures=figures(summary, row, teacher),
        lineage=summary.lineage(key),
        told=told,
        example=artefact_example(summary, model_folder).rstrip(),
        runtime=runtime_of(summary, model_folder),
        inside=sorted(path.as_posix() for path in _model_files(model_folder)),
    )


def figures(summary: RunSummary, row: Row, teacher: Row | None) -> list[tuple[str, str, str, str, str]]:
    """Lines of the card's table: what, this model, 95 % interval, n, the original."""
    lines = []
    for split, fact in row.quality.items():
        other = teacher.quality.get(split) if teacher is not None else None
        before = quality(other.value, summary.metric) if other is not None else "–"
        interval = quality_interval(fact, summary.metric)
        lines.append(
            (f"{summary.metric}, {split}", quality(fact.value, summary.metric), interval, str(fact.n or "–"), before)
        )
        constant = summary.baseline.quality.get(split) if summary.baseline is not None else None
        if constant is not None:
            lines.append(
                (f"the same, {summary.baseline.answer}", quality(constant.value, summary.metric), "–", "–", "–")
            )
        for name, words in (("rmse", "RMSE"), ("r2", "R²")):
            error, reference = (
                record_fact(summary, key, name, split) for key in (row.key, teacher.key if teacher else None)
            )
            if error is not None:
                span = f"[{error.low:.4g}, {error.high:.4g}]"
                before = "–" if reference is None else f"{reference.value:.4g}"
                lines.append((f"{words}, {split}", f"{error.value:.4g}", span, str(error.n or "–"), before))
    for name in ("p50", "p90", "p99"):
        fact, other = getattr(row, name), getattr(teacher, name, None)
        if fact is not None:
            interval = f"[{milliseconds(fact.low)}, {milliseconds(fact.high)}]" if fact.low and fact.high else "–"
            before = f"{milliseconds(other.value)} ms" if other is not None else "–"
            lines.append((f"latency {name}", f"{milliseconds(fact.value)} ms", interval, str(fact.n or "–"), before))
    for name, ratio in (("speed-up over PyTorch", row.speedup), ("speed-up over its INT8", row.speedup_int8)):
        if ratio is not None:
            interval = (
                f"[{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.low is not None and ratio.high is not None else "–"
            )
            lines.append((name, f"{ratio.value:.2f}x", interval, "–", "–"))
    for name, unit in (("size", "MB"), ("parameters", "M")):
        fact, other = getattr(row, name), getattr(teacher, name, None)
        if fact is not None:
            before = f"{other.value / 1e6:.1f} {unit}" if other is not None else "–"
            lines.append((name, f"{fact.value / 1e6:.1f} {unit}", "–", "–", before))
    return lines


def record_fact(summary: RunSummary, key: str | None, name: str, split: str) -> Measurement | None:
    """Look up a fact of a candidate on a split."""
    record = summary.records.get(key or "")
    return record.fact(name, split) if record is not None else None


def cell(value: object) -> str:
    r"""Text that stays inside one cell of a Markdown table and makes no HTML.

    >>> cell("a|b <i>\nc")
    'a\\|b &lt;i&gt; c'
    """
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("|", "\\|").replace("`", "'")


def front_matter(summary: RunSummary, key: str, model_folder: Path) -> str:
    """The card's YAML head, as the hub reads it."""
    import yaml

    kind, record = summary.task.kind, summary.records[key]
    pipeline = {"tokens": "token-classification"}.get(kind, "text-classification")
    file = onnx_file(model_folder)
    tags = ["limbeck", pipeline, *(["onnx"] if file else []), *(["int8"] if "int8" in record.traits else [])]
    data: dict[str, Any] = {
        "library_name": "transformers",
        "tags": tags,
        "pipeline_tag": pipeline,
        "metrics": [summary.metric],
    }
    base, root = summary.source(key), summary.lineage(key)[0].parameters
    if base and base == (root.get("source") or root.get("model") or summary.model) and not Path(base).exists():
        data["base_model"] = base  # a name on the hub; a folder on somebody's disk means nothing to others
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).strip()


def _model_files(folder: Path) -> list[Path]:
    found = {path.relative_to(folder) for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return sorted(found)


def _files(folder: Path) -> Iterable[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def keep_foreign(out: Path, draft: Path) -> None:
    """Carry over what somebody else put into the earlier artefact (a report, a note)."""
    if not (out / DESCRIPTION).is_file():
        return
    try:
        earlier = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError:  # a damaged description: keep everything, except what is written anew
        earlier = {}
    ours = set(earlier.get("files", ())) if isinstance(earlier, Mapping) else set()
    for name in list(_files(out)):
        if name not in ours and not (draft / name).exists():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(out / name, draft / name)
