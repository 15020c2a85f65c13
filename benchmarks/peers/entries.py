"""What is compared: peers, artefacts and whole runs as plain entries, which the measuring process can open."""

import json
from dataclasses import replace
from pathlib import Path

from limbeck.engine.result import read_result
from limbeck.errors import InputError
from limbeck.report.table import rows


def job(folder):
    """What the peers of a folder were made for."""
    if not (folder / "job.json").is_file():
        raise InputError(f"{folder} has no job.json; make peers there first (python -m benchmarks.peers.make)")
    return json.loads((folder / "job.json").read_text(encoding="utf-8"))


def peers(folder, job, task):
    """What was made in a folder, the teacher first."""
    teacher = Path(job["settings"]["teacher"])
    check_labels(teacher, task)
    entries = []
    for path in sorted(folder.glob("*/peer.json")):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        model_path = Path(metadata["folder"]) if "folder" in metadata else (path.parent / metadata["file"]).resolve()
        entry = {name: metadata[name] for name in ("name", "kind", "options") if name in metadata}
        entries.append(entry | {"key": path.parent.name, **_served(model_path, teacher, task)})
    if not any(entry["key"] == "eager" for entry in entries):
        raise InputError(f"{folder} has no peer 'eager', the teacher that all others are stated against; make it")
    return sorted(entries, key=lambda entry: entry["key"] != "eager")


def artefact(folder, task, name):
    """An artefact, or any exported model folder of a run."""
    check_labels(folder, task)
    entry = {"key": str(folder), "name": name, "kind": "onnxruntime", "limbeck": True}
    return entry | _served(onnx_file(folder), folder, task)


def front(folder, task):
    """All INT8 models of a run that its store still has, by the names of its report."""
    result = replace(read_result(folder), task=task)
    entries = []
    for row in rows(result.run_summary):
        if "int8" in result.records[row.key].traits and result.store.has(row.key):
            mark = " ★" if row.chosen else ""
            entries.append(artefact(result.store.objects / row.key, task, f"limbeck: {row.name}{mark}"))
    if not entries:
        raise InputError(f"{folder}: the store {result.store.root} has none of its INT8 models; run the recipe again")
    return entries


def onnx_file(folder):
    """The ONNX file of a limbeck folder."""
    path = Path(folder) / _config(folder).get("limbeck_onnx_file", "")
    if not path.is_file():
        raise InputError(f"{folder} holds no ONNX file; give an exported model")
    return path


def check_labels(folder, task):
    """Refuse a model whose outputs do not stand for the task's labels, in their order."""
    names = _config(folder).get("id2label", {})
    labels = [names[key] for key in sorted(names, key=int)]
    if labels != list(task.label_names):
        raise InputError(f"{folder} answers {', '.join(labels)}; task '{task.name}' has {', '.join(task.label_names)}")


def _config(folder):
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} is no model folder: it has no config.json")
    return json.loads(path.read_text(encoding="utf-8"))


def _served(path, reader, task):
    """What a model needs to answer texts, and the megabytes of its weights."""
    tokenizer = str(Path(reader) / "tokenizer.json")
    return {"path": str(path), "tokenizer": tokenizer, "max_length": task.max_length, "megabytes": megabytes(path)}


def megabytes(path):
    """Of the file or folder that serves, with what lies beside a graph: the weights of XML, external data of ONNX."""
    files = path.rglob("*.safetensors") if path.is_dir() else path.parent.glob(f"{path.stem}.*")
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)
