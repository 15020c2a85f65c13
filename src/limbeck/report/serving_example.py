"""Example code that answers one text in an artefact's folder, as the card and the page show it; a test executes it."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.core.decision import Decision, decision_of
from limbeck.core.entities import scheme_of
from limbeck.core.outputs import answer_code, output
from limbeck.core.task import Task
from limbeck.report.summary import RunSummary

OPEN = """\
{imports}

metadata = json.load(open("limbeck.json", encoding="utf-8"))
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")  # truncates as in the measurements
tokenizer.encode_special_tokens = metadata["encoding"]["split_special_tokens"]
{session}

{text}
row = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}
logits = {call}{{name: numpy.array([row[name]], dtype="int64") for name in metadata["inputs"]}})[0][0]
{seen}{answer}
"""

SEEN = "seen = dict((word, row) for word, row in reversed(list(zip({word_ids}, logits))) if word is not None)\n"
"""Maps words to the logits of their first token; words that were cut off are missing."""

FIND_ENTITIES = """\
string, length = "Anna lives in Oslo .", metadata["encoding"]["max_length"]
words, entities = list(re.finditer(r"\\S+", string)), []
prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
tokenizer.enable_truncation(length, stride=length // 4, direction=metadata["encoding"]["truncation_side"])
text = tokenizer.encode([word[0] for word in words], is_pretokenized=True)
for part in (text, *text.overflowing):  # windows of a long text
    row = {{"input_ids": part.ids, "attention_mask": part.attention_mask, "token_type_ids": part.type_ids}}
    logits = {call}{{name: numpy.array([row[name]], dtype="int64") for name in metadata["inputs"]}})[0][0]
    shares = numpy.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    last, group, before = "O", None, None
    for share, token, word, (first, end) in zip(shares, part.tokens, part.word_ids, part.offsets):
        if word is None:
            continue
        start = words[word].start()
        if before is not None and (token.startswith(prefix) if prefix else word == before):
            group["end"] = start + end  # a word has the tag of its first token
            continue
        before, tag = word, metadata["labels"][share.argmax()]
        if tag[0] in "BSUO" or last[0] in "ESLUO" or tag[2:] != last[2:]:  # tag and entity begin, or go on
            group = {{"type": tag[2:] or "_", "start": start + first, "scores": []}}
            entities += [group] if tag != "O" else []
        group["end"], last = start + end, tag
        group["scores"].append(share.max())
joined = []
for entity in sorted(entities, key=lambda entity: entity["start"]):  # of two that overlap, the longer stays
    entity["rank"] = entity["end"] - entity["start"], numpy.mean(entity["scores"])
    if not joined or entity["start"] >= joined[-1]["end"]:
        joined.append(entity)
    elif entity["rank"] > joined[-1]["rank"]:
        joined[-1] = entity
for entity in joined:
    print(entity["type"], entity["start"], entity["end"], string[entity["start"] : entity["end"]])
"""
"""Prints the entities of a string, with their offsets."""

PIPELINE = """\
import transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(".")
model = transformers.{auto}.from_pretrained(".", trust_remote_code=True)
find = transformers.pipeline(
    "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first", stride={stride}
)
for entity in find("Anna lives in Oslo ."):
    print(entity["entity_group"], entity["start"], entity["end"], entity["word"])
"""

LABELS, DEFAULT_LABEL = 'metadata["labels"]', 'metadata["default_label"]'
DEFAULT_LABEL_TORCH = 'labels.index("O") if "O" in labels else 0'
"""Code for the label names, and for the index of the label of words that were cut off."""

SESSIONS = {
    "onnxruntime": (
        """\
import json, numpy, os, tokenizers
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # disable ONNX Runtime telemetry
import onnxruntime""",
        """\
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = COUNT
options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait are idle
session = onnxruntime.InferenceSession(metadata["onnx_file"], options, providers=["CPUExecutionProvider"])""",
        "session.run(None, ",
    ),
    "openvino": (
        "import json, numpy, openvino, tokenizers",
        """\
options = {"INFERENCE_NUM_THREADS": COUNT, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
model = openvino.compile_model(metadata["onnx_file"], "CPU", options)""",
        "model(",
    ),
}
"""Code that imports a runtime, code that opens the ONNX file in it, and the beginning of the call."""
_imports, _session, _call = SESSIONS["onnxruntime"]
ON_GPU = '"CUDAExecutionProvider", "CPUExecutionProvider"'
SESSIONS["onnxruntime-gpu"] = (_imports, _session.replace('"CPUExecutionProvider"', ON_GPU), _call)

OPEN_TORCH = """\
import torch, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(".")
model = transformers.{auto}.from_pretrained(".", trust_remote_code=True).eval()
{text}
with torch.inference_mode():
    logits = model(**text).logits[0].numpy()
{labels}
{seen}{answer}
"""

LABELS_TORCH = "labels = [model.config.id2label[i] for i in range(model.config.num_labels)]"
METADATA_TORCH = 'import json, numpy\n\nmetadata = json.load(open("limbeck.json", encoding="utf-8"))'
"""What an answer needs in torch: label names, or with fitted thresholds all that the folder says."""


RANK = """\
query = "How does a slipstream change the lift of a wing?"
documents = ["Lift of wings in a propeller slipstream.", "Heat transfer in a pipe."]
texts = tokenizer.encode_batch([(query, document) for document in documents])
order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))  # by length, so that little is padded
names = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
scores, size = numpy.zeros(len(texts)), metadata["request"]["batch"]
for start in range(0, len(order), size):
    part = order[start : start + size]
    for i in part:
        texts[i].pad(len(texts[part[-1]].ids), pad_id=metadata["request"]["pad_id"])
    rows = {{name: [getattr(texts[i], names[name]) for i in part] for name in metadata["inputs"]}}
    scores[part] = {call}{{name: numpy.array(row, dtype="int64") for name, row in rows.items()}})[0][:, 0]
for i in numpy.argsort(-scores, kind="stable"):
    print(float(scores[i]), documents[i])
"""
"""Ranks the documents of a query, in sub-batches of the size that was fastest."""

CROSS_ENCODER = """\
import sentence_transformers

model = sentence_transformers.CrossEncoder(".", trust_remote_code=True, device="cpu", max_length={max_length})
query = "How does a slipstream change the lift of a wing?"
documents = ["Lift of wings in a propeller slipstream.", "Heat transfer in a pipe."]
for hit in model.rank(query, documents):
    print(hit["score"], documents[hit["corpus_id"]])
"""
"""The example of a reranker in torch."""

SENTENCE_TRANSFORMERS = """\
import sentence_transformers

model = sentence_transformers.SentenceTransformer(".", trust_remote_code=True, device="cpu")
print(model.encode_query("What a wonderful film.").tolist())  # encode_document for texts that are searched
"""
"""The example of a model of vectors in torch."""


def example(
    kind: str,
    *,
    pair: bool = False,
    runtime: str = "onnxruntime",
    threads: int = 1,
    max_length: int = 128,
    labels: Sequence[str] = (),
    decision: Decision | None = None,
) -> str:
    """Return code that answers one text in the artefact's folder.

    At most 18 lines, 22 with fitted thresholds, 27 that rank documents, or 45 that find entities.

    Args:
        kind: Meaning of the outputs.
        pair: Whether inputs are pairs of texts.
        runtime: 'onnxruntime', 'onnxruntime-gpu', 'openvino' or 'torch'.
        threads: Threads of the runtime.
        max_length: Tokens after which texts are cut; used with torch, other runtimes read it from the folder.
        labels: The label names; those of words may mark entities, which are then printed.
        decision: Fitted thresholds and temperature.
    """
    words, vectors = output(kind).per_token, output(kind).vectors
    scheme = scheme_of(tuple(labels)) if words else None
    if scheme is not None and (runtime in SESSIONS or scheme.has_only_begin_and_inside):
        return _entity_example(kind, runtime, threads, max_length)
    if vectors and runtime not in SESSIONS:
        return SENTENCE_TRANSFORMERS
    if output(kind).grouped:
        return _rank_example(runtime, threads, max_length)
    pair = pair and not vectors  # each text has a vector of its own
    sample = '"The first text.", "The second text."' if pair else '"What a wonderful film."'
    if words:
        sample = "words"
    if vectors:
        sample = f'metadata["encoding"]["prompts"]["query"] + {sample}'
    decided = output(kind).decision_code(decision) if decision is not None else ""
    prefix = 'words = "Anna lives in Oslo .".split()\n' if words else ""
    if runtime in SESSIONS:
        imports, session, call = SESSIONS[runtime]
        return OPEN.format(
            imports=imports,
            session=session.replace("COUNT", str(threads)),
            call=call,
            text=f"{prefix}text = tokenizer.encode({sample}{', is_pretokenized=True' if words else ''})",
            seen=SEEN.format(word_ids="text.word_ids") if words else "",
            answer=decided or f"print({answer_code(kind, LABELS, DEFAULT_LABEL)})",
        )
    split = f"{', is_split_into_words=True' if words else ''}, truncation=True, max_length={max_length}"
    return OPEN_TORCH.format(
        auto=output(kind).auto_class,
        text=f'{prefix}text = tokenizer({sample}{split}, return_tensors="pt")',
        seen=SEEN.format(word_ids="text.word_ids()") if words else "",
        labels=METADATA_TORCH if decided else LABELS_TORCH,
        answer=decided or f"print({answer_code(kind, 'labels', DEFAULT_LABEL_TORCH)})",
    )


def _rank_example(runtime: str, threads: int, max_length: int) -> str:
    if runtime not in SESSIONS:
        return CROSS_ENCODER.format(max_length=max_length)
    imports, session, call = SESSIONS[runtime]
    opening = OPEN.split("{text}")[0].format(imports=imports, session=session.replace("COUNT", str(threads)))
    return opening + RANK.format(call=call)


def _entity_example(kind: str, runtime: str, threads: int, max_length: int) -> str:
    if runtime not in SESSIONS:
        return PIPELINE.format(auto=output(kind).auto_class, stride=max_length // 4)
    imports, session, call = SESSIONS[runtime]
    opening = OPEN.split("{text}")[0].format(
        imports=imports.replace("numpy, os, tok", "numpy, os, re, tok").replace("openvino, tok", "openvino, re, tok"),
        session=session.replace("COUNT", str(threads)),
    )
    return opening + FIND_ENTITIES.format(call=call)


def artefact_example(summary: RunSummary, *, exported: bool, key: str | None = None) -> str:
    """Return the example code for a model.

    Args:
        summary: The run, with its task.
        exported: Whether it is an ONNX file.
        key: Its key, by which fitted thresholds are looked up.
    """
    task = summary.known_task
    record = summary.records.get(key or "")
    return example(
        task.kind,
        pair=is_pair(task),
        runtime=runtime_of(summary, exported=exported),
        threads=summary.target.threads,
        max_length=task.max_length,
        labels=task.label_names,
        decision=decision_of(record) if record is not None else None,
    )


def runtime_of(summary: RunSummary, *, exported: bool) -> str:
    """Return the package that serves a model; ONNX files run in ONNX Runtime even if the target is torch."""
    if not exported:
        return "torch"
    if summary.target.on_gpu:
        return "onnxruntime-gpu"
    return "openvino" if summary.target.runtime == "openvino" else "onnxruntime"


def is_pair(task: Task) -> bool:
    """Return whether the task's inputs are pairs of texts."""
    return any(split.pairs is not None for split in task.splits.values())
