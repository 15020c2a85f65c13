"""The artefact: a Hugging Face folder with the ONNX file, a model card, and ``limbeck.json`` for programs.

It runs with nothing but onnxruntime and tokenizers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record
from limbeck.core.decision import decision_of
from limbeck.core.finite import json_text, load_json
from limbeck.core.measurement import CASCADE
from limbeck.core.metrics import default_label
from limbeck.core.outputs import OutputSpec
from limbeck.core.paths import user_path
from limbeck.data.encoding import TaskTokenizer, TextEncoding
from limbeck.errors import InputError
from limbeck.model.folder_files import check_link, read_object
from limbeck.model.interchange import translate_folder
from limbeck.model.layout import model_files, write_code
from limbeck.model.tokenizer_loading import open_tokenizer
from limbeck.report.display_names import names
from limbeck.report.early_exits import exits_json
from limbeck.report.model_card import card
from limbeck.report.model_folder import check_source, graph_inputs, onnx_file
from limbeck.report.report import slim
from limbeck.report.serving_example import is_pair, runtime_of
from limbeck.report.summary import RunSummary
from limbeck.storage.destination import check_destination, check_name, whole_folder
from limbeck.storage.digests import copy_checked

DESCRIPTION = "limbeck.json"


def write_artefact(
    summary: RunSummary, key: str, model_folder: Path, out: Path, digests: Mapping[str, str] | None = None
) -> Path:
    """Copy a stored model to a folder and add its card and description.

    Args:
        summary: The run, with its task.
        key: Key of the model.
        model_folder: Folder of the stored model.
        out: A new or empty folder, or an earlier artefact. That is replaced in one step; files in it that limbeck did
            not write are kept.
        digests: SHA-256 of each file of the stored model, which the copies must have; without them nothing is checked.

    Returns:
        The resolved path of ``out``.

    Raises:
        DigestMismatch: A file has other content than was stored.
        InputError: ``model_folder`` is incomplete, or ``out`` is something else.
    """
    model_folder, out = Path(model_folder), user_path(out)
    check_source(model_folder)
    check_out(out, model_folder)
    out = out.resolve()
    with whole_folder(out) as draft:
        for path in model_files(model_folder):
            if digests is not None and path.as_posix() not in digests:
                continue  # it is not part of what was stored
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            check_link(model_folder / path, model_folder)
            if digests is None:
                shutil.copyfile(model_folder / path, draft / path)
            else:
                copy_checked(model_folder / path, draft / path, digests[path.as_posix()])
        encoding = encoding_of(summary, model_folder)
        translate_folder(draft, encoding.max_length)
        if "auto_map" in read_object(draft / "config.json"):
            write_code(draft)
        bake_tokenizer(draft, encoding, open_tokenizer(model_folder))
        (draft / "README.md").write_text(card(summary, key, model_folder), encoding="utf-8")
        files = sorted([*_files(draft), DESCRIPTION])
        description = {**describe(summary, key, model_folder), "files": files}
        text = json_text(description, indent=2, default=str) + "\n"
        (draft / DESCRIPTION).write_text(text, encoding="utf-8")
        keep_foreign(out, draft)
    return out


def check_out(out: Path, model_folder: Path | None = None) -> None:
    """Refuse a destination whose content limbeck did not write; callers check it before hours of training.

    Args:
        out: The destination.
        model_folder: Folder of the stored model, which must not contain the destination.

    Raises:
        InputError: The destination cannot be used.
    """
    check_name(out)
    out = user_path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder that is new or empty")
    if model_folder is not None and (
        out.resolve() == model_folder.resolve() or model_folder.resolve() in out.resolve().parents
    ):
        raise InputError(f"--out {out} is inside the model's own folder {model_folder}; name another")
    if out.is_dir() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        content = ", ".join(sorted(path.name for path in out.iterdir())[:3])
        raise InputError(
            f"--out {out} is neither empty nor an earlier artefact (it has {content}, but no {DESCRIPTION}); "
            f"name a new folder, for example {out}-artefact"
        )
    check_destination(out)


def describe(summary: RunSummary, key: str, model_folder: Path) -> dict[str, Any]:
    """Return the content of ``limbeck.json``: what a program needs to serve the model, and how it was made.

    Args:
        summary: The run, with its task.
        key: Key of the model.
        model_folder: Folder of the stored model.
    """
    task, record = summary.known_task, summary.records[key]
    decision = decision_of(record)
    outputs = OutputSpec.for_task(task.kind, task.label_names)
    file = onnx_file(model_folder)
    return {
        "format": 1,
        "task": task.name,
        "kind": outputs.kind,
        "problem_type": outputs.problem_type,
        "runtime": runtime_of(summary, exported=file is not None).removesuffix("-gpu"),
        "onnx_file": file,
        "inputs": graph_inputs(model_folder / file) if file else ["input_ids", "attention_mask", "token_type_ids"],
        "max_length": task.max_length,
        "pair": is_pair(task),
        "labels": list(outputs.labels),
        "default_label": default_label(outputs.labels),
        "encoding": encoding_of(summary, model_folder).to_json(),
        "decision": decision.to_json() if decision is not None else None,
        "request": request_of(summary, record, open_tokenizer(model_folder)) if task.task_kind.grouped else None,
        "metrics": [slim(fact) for fact in record.facts],
        "teacher": _other(summary, summary.teacher),
        "reference": _other(summary, summary.reference),
        **({"target_name": summary.target_name} if summary.target_name else {}),
        "target": str(summary.target),
        "machine": dict(summary.environment),
        "seeds": list(summary.seeds),
        "recipe": str(summary.recipe),
        "shape": record.shape.to_json() if record.shape is not None else None,
        "key": key,
        "lineage": [entry.key for entry in summary.lineage(key)],
        "steps": _steps(summary, key),
        **({"cascade": cascade_of(summary, key)} if record.fact(CASCADE) is not None else {}),
    }


def _steps(summary: RunSummary, key: str) -> list[dict[str, Any]]:
    return [{"step": entry.step, "parameters": dict(entry.parameters)} for entry in summary.lineage(key)]


def cascade_of(summary: RunSummary, key: str) -> dict[str, Any]:
    """Return when the smaller model of a cascade answers, how often it did, and how that model was made.

    Args:
        summary: The run.
        key: Key of the cascade.
    """
    description, small = exits_json(summary, CASCADE).get(key, {}), summary.records[key].parameters["partner"]
    return description | {"steps": _steps(summary, small)}


def request_of(summary: RunSummary, record: Record, tokenizer: TaskTokenizer) -> dict[str, Any]:
    """Return how the documents of a request are answered: in the sub-batches that were timed and judged.

    Args:
        summary: The run.
        record: The model.
        tokenizer: Its tokenizer.
    """
    latency = record.fact("latency_p50")
    batch = latency.detail.get("sub_batch") if latency is not None else None
    target = summary.target
    return {
        "batch": int(batch or target.batch),
        "pad_id": tokenizer.pad_token_id or 0,
        "candidates": target.candidates,
    }


def _other(summary: RunSummary, key: str | None) -> dict[str, Any] | None:
    """Return name and figures of the teacher, or of the model that figures are relative to."""
    record = summary.records.get(key or "")
    if record is None:
        return None
    metrics = [slim(fact) for fact in record.facts]
    return {"key": record.key, "name": names(summary)[record.key], "metrics": metrics}


def encoding_of(summary: RunSummary, model_folder: Path) -> TextEncoding:
    """Return how the texts of the run's task are encoded for a model."""
    task = summary.known_task
    return TextEncoding.of(open_tokenizer(model_folder), task.max_length, words=task.task_kind.per_token)


def bake_tokenizer(folder: Path, encoding: TextEncoding, tokenizer: TaskTokenizer) -> None:
    """Write an encoding into a folder's tokenizer files, as far as they can express it, so that all programs apply it.

    Args:
        folder: The artefact.
        encoding: The encoding that was measured.
        tokenizer: The tokenizer that was measured; its class may differ from the model's ``tokenizer.json``.
    """
    path = folder / "tokenizer.json"
    path.write_text(encoding.bake(tokenizer.backend_tokenizer.to_str()), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    settings = load_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings |= {"model_max_length": encoding.max_length, "truncation_side": encoding.truncation_side}
    settings["split_special_tokens"] = encoding.split_special_tokens
    settings |= {"add_prefix_space": True} if encoding.words else {}
    settings |= {} if encoding.token_type_ids else {"model_input_names": ["input_ids", "attention_mask"]}
    settings.pop("auto_map", None)  # the tokenizer needs no custom code
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _files(folder: Path) -> Iterable[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def keep_foreign(out: Path, draft: Path) -> None:
    """Copy files that others added to the earlier artefact, such as a report, into its replacement."""
    out = user_path(out)
    if not (out / DESCRIPTION).is_file():
        return
    try:
        earlier = load_json((out / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError:  # a damaged description: keep everything that is not rewritten
        earlier = {}
    files = earlier.get("files") if isinstance(earlier, Mapping) else None
    ours = {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
    for name in list(_files(out)):
        if name not in ours and not (draft / name).exists():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(out / name, draft / name)
