"""Example code that answers one text in an artefact's folder, as the card and the page show it; a test executes it."""

from __future__ import annotations

from limbeck.core.outputs import answer_code, output
from limbeck.core.task import Task
from limbeck.report.summary import RunSummary

OPEN = """\
{imports}

metadata = json.load(open("limbeck.json", encoding="utf-8"))
tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")  # cuts texts as they were cut when measured
tokenizer.encode_special_tokens = metadata["encoding"]["split_special_tokens"]
{session}

{text}
row = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}
logits = {call}{{name: numpy.array([row[name]], dtype="int64") for name in metadata["inputs"]}})[0][0]
{seen}print({answer})
"""

SEEN = "seen = dict((word, row) for word, row in reversed(list(zip({word_ids}, logits))) if word is not None)\n"
"""Maps words to the logits of their first token; words that were cut off are missing."""

SESSIONS = {
    "onnxruntime": (
        """\
import json, numpy, os, tokenizers
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # or the runtime reports its use to its makers
import onnxruntime""",
        """\
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = COUNT
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


SENTENCE_TRANSFORMERS = """\
import sentence_transformers

model = sentence_transformers.SentenceTransformer(".", trust_remote_code=True, device="cpu")
print(model.encode("What a wonderful film.").tolist())
"""
"""The example of a model of vectors in torch."""


def example(
    kind: str, *, pair: bool = False, runtime: str = "onnxruntime", threads: int = 1, max_length: int = 128
) -> str:
    """Return code of at most 17 lines that answers one text in the artefact's folder.

    Args:
        kind: Meaning of the outputs.
        pair: Whether inputs are pairs of texts.
        runtime: 'onnxruntime', 'openvino' or 'torch'.
        threads: Threads of the runtime.
        max_length: Tokens after which texts are cut; used with torch, other runtimes read it from the folder.
    """
    words, vectors = output(kind).per_token, output(kind).vectors
    if vectors and runtime not in SESSIONS:
        return SENTENCE_TRANSFORMERS
    pair = pair and not vectors  # each text has a vector of its own
    sample = '"The first text.", "The second text."' if pair else '"What a wonderful film."'
    if words:
        sample = "words"
    if vectors:
        sample = f'metadata["encoding"]["prompt"] + {sample}'
    prefix = 'words = "Anna lives in Oslo .".split()\n' if words else ""
    if runtime in SESSIONS:
        imports, session, call = SESSIONS[runtime]
        return OPEN.format(
            imports=imports,
            session=session.replace("COUNT", str(threads)),
            call=call,
            text=f"{prefix}text = tokenizer.encode({sample}{', is_pretokenized=True' if words else ''})",
            seen=SEEN.format(word_ids="text.word_ids") if words else "",
            answer=answer_code(kind, 'metadata["labels"]', 'metadata["default_label"]'),
        )
    split = f"{', is_split_into_words=True' if words else ''}, truncation=True, max_length={max_length}"
    return OPEN_TORCH.format(
        auto=output(kind).auto_class,
        text=f'{prefix}text = tokenizer({sample}{split}, return_tensors="pt")',
        seen=SEEN.format(word_ids="text.word_ids()") if words else "",
        answer=answer_code(kind, "labels", 'labels.index("O") if "O" in labels else 0'),
    )


def artefact_example(summary: RunSummary, *, exported: bool) -> str:
    """Return the example code for a model that is, or is not, an ONNX file."""
    task = summary.known_task
    return example(
        task.kind,
        pair=is_pair(task),
        runtime=runtime_of(summary, exported=exported),
        threads=summary.target.threads,
        max_length=task.max_length,
    )


def runtime_of(summary: RunSummary, *, exported: bool) -> str:
    """Return the runtime that serves a model; ONNX files run in ONNX Runtime even if the target is torch."""
    if not exported:
        return "torch"
    return "openvino" if summary.target.runtime == "openvino" else "onnxruntime"


def is_pair(task: Task) -> bool:
    """Return whether the task's inputs are pairs of texts."""
    return any(split.pairs is not None for split in task.splits.values())
