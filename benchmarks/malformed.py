"""Give the command line malformed input of every kind, and count what comes of it.

    python benchmarks/malformed.py [--only weights ONNX] [--list]

Recipes, YAML, configurations, tokenizers, weights, graphs, data files, values of options, stores, ledgers and standard
input: fixed lists, so two versions of limbeck can be compared. Each input has a process of its own, forked from this
one, and a fresh copy of what it changes. Good is a result that the input allows, or one clear error before any work.
Counted as faults: tracebacks, errors after work had begun, more than 5 s of CPU time, and results where none can be.
Everything is tiny: a BERT of two layers with random weights, 30 texts.
"""

import argparse
import contextlib
import copy
import io
import itertools
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

MAX_SECONDS, MAX_WALL = 5, 60
MAX_MESSAGE = 4000
ODD = [None, True, -1, 0, 1.5, 10**30, math.nan, math.inf, "", "64", "../x", "x\0", "x" * 5000, [], {}, [[1]]]
MODEL, TASK = "model", "data/task.csv"
RECIPE = {
    "model": MODEL,
    "task": {"path": TASK, "text": "text", "label": "label", "max_length": 16, "limit": {"train": 12}},
    "target": {"device": "cpu", "runtime": "onnxruntime", "threads": 1, "batch": 1, "seq_len": 8},
    "budget": {"size_mb": 10, "max_drop": 100},
    "seed": 1,
    "name": "odd",
    "allow_weak_teacher": True,
    "steps": [
        {"finetune": {"epochs": 1, "learning_rate": 0.001, "batch_size": 8, "warmup_ratio": 0.1}},
        {"prune": {"keep": 0.5, "cost": "parameters"}},
        {"export": {}},
        {"size": {"samples": 4, "split": "validation"}},
        {"quality": {"split": "validation"}},
        {"cheapest": {}},
    ],
}


@dataclass(frozen=True)
class Case:
    """One input: the command, what is changed before, and whether a result is possible (None: either will do)."""

    kind: str
    name: str
    command: tuple[str, ...]
    change: object = None
    valid: bool | None = None
    stdin: bytes = b""


@dataclass
class Outcome:
    """What came of an input."""

    status: int = 0
    text: str = ""
    problem: str = ""
    worked: list[str] = field(default_factory=list)
    seconds: float = 0.0


# --- good input -----------------------------------------------------------------------------------------------------


def build(root: Path) -> None:
    """Write a model, an exported and a quantized one, a task, and a finished run with its store."""
    import onnxruntime  # noqa: F401 what is imported here need not be in every process
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification  # noqa: F401

    import limbeck.cli
    import limbeck.engine.planning.compress
    import limbeck.model.checkpoints
    import limbeck.train.finetuning  # noqa: F401
    from limbeck.data.synthetic import toy_task, toy_tokenizer

    task = toy_task(train=30, validation=12, test=12)
    (root / "data").mkdir(parents=True)
    rows = [f"{row['text']},{task.label_names[row['label']]}" for row in task.split("train").to_rows()]
    (root / TASK).write_text("text,label\n" + "\n".join(rows) + "\n")
    tokenizer, labels = toy_tokenizer(task), dict(enumerate(task.label_names))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
        **sizes,
    )
    BertForSequenceClassification(config).save_pretrained(root / MODEL)
    tokenizer.save_pretrained(root / MODEL)
    (root / "recipe.yaml").write_text(json.dumps(RECIPE))
    with contextlib.chdir(root):
        for arguments in (
            ("run", "recipe.yaml", "--folder", "run", "--store", "store"),
            (
                "prune",
                "--model",
                MODEL,
                "--task",
                TASK,
                "--keep",
                "0.5",
                "--cost",
                "parameters",
                "--out",
                "pruned",
                "--store",
                "store",
            ),
            ("export", "--model", MODEL, "--task", TASK, "--out", "exported", "--store", "store"),
        ):
            outcome = call(Case("", "", arguments))
            if outcome.problem or outcome.status not in (0, 3):
                sys.exit(f"{' '.join(arguments)}: {outcome.text}{outcome.problem}")


# --- malformed input ------------------------------------------------------------------------------------------------


def paths(data, path=()):
    """Yield the path of every node inside plain data."""
    if path:
        yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, child in items:
        yield from paths(child, (*path, key))


def replaced(data, path, value):
    data = copy.deepcopy(data)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return data


def as_yaml(data) -> bytes:
    """Write JSON, which is YAML but for numbers that are none."""
    return json.dumps(data).replace("NaN", ".nan").replace("Infinity", ".inf").encode()


def dotted(path) -> str:
    return ".".join(map(str, path))


def write(name: str, content: bytes):
    def change():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return change


def edit(name: str, path, value):
    """Change one value of a JSON file."""

    def change():
        data = replaced(json.loads(Path(name).read_text()), path, value)
        Path(name).write_text(json.dumps(data))

    return change


def damaged(name: str, number: int):
    """Damage a file of bytes; the number decides how."""

    def change():
        path = Path(name)
        raw, rng = bytearray(path.read_bytes()), random.Random(number)
        start = rng.randrange(min(len(raw), 4000) if number % 2 else len(raw))  # half of them where the header is
        how = ("flip", "cut", "zeros", "insert", "delete", "noise")[number % 6]
        if how == "flip":
            raw[start] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del raw[start:]
        elif how == "zeros":
            raw[start : start + 64] = bytes(len(raw[start : start + 64]))
        elif how == "insert":
            raw[start:start] = b"\xff" * 9
        elif how == "delete":
            del raw[start : start + 7]
        else:
            raw[start : start + 100] = rng.randbytes(100)
        path.write_bytes(raw)

    return change


def recipes():
    run = ("run", "odd.yaml", "--folder", "runs/odd", "--store", "store")
    for path in paths(RECIPE):
        for value in (None, True, -1, 10**30, math.nan, "", "x\0", [[1]]):
            yield Case(
                "recipes",
                f"{dotted(path)}={value!r:.20}",
                run,
                write("odd.yaml", as_yaml(replaced(RECIPE, path, value))),
            )
    for path in (("x",), ("task", "x"), ("target", "x"), ("steps", 0, "finetune", "epoch")):
        yield Case(
            "recipes", f"unknown {dotted(path)}", run, write("odd.yaml", as_yaml(replaced(RECIPE, path, 1))), False
        )


def yaml():
    good = "model: model\ntask: data/task.csv\nsteps: [export]\n"
    texts = [
        "", " ", "\0", "\t", "[", "{", "- a\nb: c", "a: b: c", "a: [1", "? [a]\n: 1", "? {a: 1}\n: 1", "a: 1\na: 2",
        "&a [*a]", "a: &x [1]\nb: *x", "<<: {a: 1}", "!!int x", "!!python/object/apply:os.system [ls]", "!x y",
        "%YAML 1.1\n---\n" + good, "---\n---\n", good + "---\n" + good, good.replace("model", "modél", 1),
        "a: 0x_", "a: 1:30", "a: 0777", "a: 1e999", "a: .nan", "[" * 5000, "{a: " * 3000, "- " * 5000, "a" * 200_000,
        "'" * 1001, '"\\ud800"', '"\\x00"', "a: |\n  x\n y", "\ufeff" + good, good + "seed: 1_000", "null",
        "5", "x", "[]",
        "steps: [{use: odd.yaml}]", good.replace("[export]", "[{use: odd.yaml}]"),
        good.replace("export", "{use: ../../x}"),
        good.replace("[export]", "[{each: {prune: {keep: " + str([n / 1000 for n in range(1, 999)]) + "}}}]"),
        good.replace("[export]", "[" + "{fork: [[" * 60 + "export" + "]]}" * 60 + "]"),
        good + "name: ../../x", good + "name: /x",
    ]  # fmt: skip
    raw = [text.encode() for text in texts]
    raw += [good.encode("utf-16"), good.encode("utf-32"), "model: modèle".encode("latin-1"), b"\xff\xfe", b"\x80" * 100]
    for number, content in enumerate(raw):
        yield Case("YAML", f"{number}: {content[:30]!r}", ("check", "odd.yaml"), write("odd.yaml", content))
    for name in ("nowhere.yaml", "data", "/dev/null", "/dev/zero", "x\0.yaml", "x" * 5000, "../x.yaml", "quickstrat"):
        yield Case("YAML", f"check {name[:20]!r}", ("check", name), None, False)


CONFIG = [
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps", "id2label", "label2id",
    "architectures", "model_type", "pad_token_id",
]  # fmt: skip
OURS = [
    "hidden_size",
    "head_dim",
    "layer_heads",
    "layer_ffn",
    "layer_attention",
    "family",
    "vocab_size",
    "max_positions",
]


def configurations():
    predict = ("predict", "odd", "a text")
    for folder, names in ((MODEL, CONFIG), ("pruned", OURS)):
        for name in names:
            for value in (None, -1, 0, 10**6, math.nan, "64", "x" * 5000, [], {"a": [1]}, ["x"] * 3):
                yield Case(
                    "configurations",
                    f"{folder} {name}={value!r:.20}",
                    predict,
                    both(fresh(folder), edit("odd/config.json", (name,), value)),
                )
    texts = [
        "",
        "{}",
        "[]",
        "null",
        "5",
        "x",
        "{",
        '{"model_type": "bert"}',
        '{"a":' * 10**5,
        "[" * 10**5,
        "\0",
        '"\ud800"',
    ]
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        yield Case("configurations", f"{raw[:20]!r}", predict, both(fresh(MODEL), write("odd/config.json", raw)), False)


def fresh(folder: str):
    return lambda: shutil.copytree(folder, "odd")


def both(*changes):
    def change():
        for each in changes:
            each()

    return change


def tokenizers():
    predict = ("predict", "odd", "a text")
    keys = [
        "version",
        "truncation",
        "padding",
        "added_tokens",
        "normalizer",
        "pre_tokenizer",
        "post_processor",
        "model",
    ]
    for name, value in itertools.product(keys, (None, -1, "x", [], {}, [{}])):
        change = both(fresh(MODEL), edit("odd/tokenizer.json", (name,), value))
        yield Case("tokenizers", f"tokenizer.json {name}={value!r}", predict, change)
    for inner, value in itertools.product(
        ("type", "vocab", "unk_token"), (None, -1, "x", [], {}, {"a": -1}, {"a": 10**12})
    ):
        change = both(fresh(MODEL), edit("odd/tokenizer.json", ("model", inner), value))
        yield Case("tokenizers", f"tokenizer.json model.{inner}={value!r}", predict, change)
    settings = ["tokenizer_class", "model_max_length", "pad_token", "auto_map", "fast_tokenizer_files", "do_lower_case"]
    for name, value in itertools.product(settings, (None, -1, 10**30, "x", "x" * 5000, [], {"a": 1}, ["../x"])):
        change = both(fresh(MODEL), edit("odd/tokenizer_config.json", (name,), value))
        yield Case("tokenizers", f"tokenizer_config.json {name}={value!r:.20}", predict, change)
    for number in range(24):
        change = both(fresh(MODEL), damaged("odd/tokenizer.json", number))
        yield Case("tokenizers", f"tokenizer.json damaged {number}", predict, change)
    for name, content in itertools.product(
        ("tokenizer.json", "tokenizer_config.json"), (b"", b"{}", b"[" * 10**5, b"\xff")
    ):
        yield Case("tokenizers", f"{name} {content[:8]!r}", predict, both(fresh(MODEL), write(f"odd/{name}", content)))


def weights():
    predict = ("predict", "odd", "a text")
    for folder, number in itertools.product((MODEL, "pruned"), range(30)):
        change = both(fresh(folder), damaged("odd/model.safetensors", number))
        yield Case("weights", f"{folder} damaged {number}", predict, change)
    headers = [b"", b"{}", b"[]", b"x", b'{"a": 5}', b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}']
    headers += [b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}', b'{"a":' * 10**5]
    for header in headers:
        for size in (len(header), 0, 2**63):
            raw = size.to_bytes(8, "little") + header + bytes(8)
            change = both(fresh(MODEL), write("odd/model.safetensors", raw))
            yield Case("weights", f"header {header[:20]!r} of {size}", predict, change, False)
    index = "odd/model.safetensors.index.json"
    for table in (
        None,
        [],
        {},
        {"a": 5},
        {"a": "../x.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "x.bin"},
        {"a": "x.safetensors"},
    ):
        remove = lambda: Path("odd/model.safetensors").unlink()  # noqa: E731
        content = json.dumps({"weight_map": table}).encode()
        yield Case("weights", f"index {table!r}", predict, both(fresh(MODEL), remove, write(index, content)), False)


def graphs():
    for number in range(60):
        change = both(fresh("exported"), damaged("odd/onnx/model.onnx", number))
        yield Case("ONNX", f"damaged {number}", ("predict", "odd", "a text"), change)
    for content in (b"", b"\0", b"x" * 1000, b"\x08\x09"):
        change = both(fresh("exported"), write("odd/onnx/model.onnx", content))
        yield Case("ONNX", f"{content[:8]!r}", ("predict", "odd", "a text"), change, False)
    for value in (None, 5, "../x.onnx", "/etc/passwd", "config.json", "onnx/x.onnx", [], "x\0.onnx"):
        change = both(fresh("exported"), edit("odd/config.json", ("limbeck_onnx_file",), value))
        yield Case("ONNX", f"limbeck_onnx_file={value!r}", ("predict", "odd", "a text"), change, False)
    for number in range(16):
        quantize = ("quantize", "--model", "odd", "--task", TASK, "--out", "out", "--store", "store")
        yield Case(
            "ONNX", f"quantize {number}", quantize, both(fresh("exported"), damaged("odd/onnx/model.onnx", number))
        )


def data_files():
    evaluate = ("evaluate", MODEL, "--task")
    for suffix in ("csv", "tsv", "jsonl", "json", "parquet", "conll", "txt", "yaml"):
        texts = [
            b"", b"\n\n", b"text,label\n", b"\0\0", b"\xff\xfe\0", b"text,label\n\xe9,a\n", b'text,label\n"a,b\n' * 3,
            b"{" * 5000, b"[" * 10**5, b'{"text": 5, "label": null}\n', b'{"text": NaN}', b"text,text\na,b\n",
            b"a" * 10**6, b"PAR1PAR1",
        ]  # fmt: skip
        for content in texts:
            case = (*evaluate, f"odd.{suffix}")
            yield Case("data files", f"{suffix} {content[:20]!r}", case, write(f"odd.{suffix}", content))
    for name in (
        "nowhere.csv",
        "/dev/zero",
        "/dev/null",
        ".",
        "/proc/self/mem",
        "x\0.csv",
        "x" * 5000,
        "movie-reveiws",
    ):
        yield Case("data files", f"{name[:20]!r}", (*evaluate, name), None, False)
    for option in (
        "label=nowhere",
        "text=",
        "max_length=0",
        "max_length=x",
        "limit=-1",
        "kind=x",
        "metric=x",
        "x=1",
        "x",
        "=",
    ):
        yield Case("data files", f"--task-set {option}", (*evaluate, TASK, "--task-set", option), None, False)


NUMBERS = ("-1", "0", "nan", "inf", "1e999", "", "x", "1.5", "0x10", "99999999999999999999", "true", "١")
"""Values that no count takes; 1.5 is a fine latency."""
BAD_NUMBERS = ("-1", "nan", "inf", "1e999", "", "x", "0x10", "99999999999999999999", "true")


def options():
    compress = ("compress", MODEL, "--task", TASK, "--effort", "quick", "--store", "store", "--folder", "runs/odd")
    for name in ("threads", "batch", "seq-len", "seed", "replicas", "min-steps", "early-stopping-patience"):
        zero_is_fine = name in ("seed", "min-steps", "early-stopping-patience")
        for value in NUMBERS:
            if value != "0" or not zero_is_fine:
                yield Case("options", f"compress --{name} {value!r}", (*compress, f"--{name}={value}"), None, False)
    for name, value in itertools.product(("latency-ms", "size-mb", "max-drop", "epochs", "learning-rate"), BAD_NUMBERS):
        yield Case("options", f"compress --{name} {value!r}", (*compress, f"--{name}={value}"), None, False)
    for name in ("strategy", "effort", "runtime", "class-weights", "kind", "metric", "delimiter", "track", "nonsense"):
        for value in ("", "x", "PRUNE", "x" * 3000):
            yield Case("options", f"compress --{name} {value[:9]!r}", (*compress, f"--{name}={value}"), None, False)
    for where in ("/proc/x/y", "/dev/null", f"{MODEL}/inside", "data/task.csv", "x\0", "x" * 5000, "/", "data"):
        yield Case("options", f"compress --out {where[:20]!r}", (*compress, "--out", where), None, False)
    for value in BAD_NUMBERS:
        for command in (
            ("evaluate", MODEL, "--task", TASK, "--threads"),
            ("evaluate", MODEL, "--task", TASK, "--batch"),
        ):
            yield Case("options", f"{' '.join(command[::4])} {value!r}", (*command, value), None, False)
        prune = ("prune", "--model", MODEL, "--task", TASK, "--out", "out", "--store", "store", f"--keep={value}")
        yield Case("options", f"prune --keep {value!r}", prune, None, False)
        yield Case("options", f"profile --threads {value!r}", ("profile", "--threads", value), None, False)
    for model in ("nowhere", "", "/etc", "data", TASK, "../../x", "x\0", "a/b/c", "minilm-l7", "x" * 5000):
        yield Case("options", f"predict {model[:20]!r}", ("predict", model, "a text"), None, False)
    for arguments in (
        ["nonsense"],
        ["run"],
        ["--nonsense"],
        ["predict", MODEL, "a", "--pair", "b", "--pair", "c"],
        ["gc"],
    ):
        yield Case("options", " ".join(arguments), tuple(arguments), None, False)


def stores():
    run = ("run", "recipe.yaml", "--folder", "run", "--store", "store", "--out", "again")
    for pattern in ("memo/*.json", "objects/*/card.json", "objects/*/config.json", "objects/*/model.safetensors",
                    "tasks/*/*", "objects/*/tokenizer.json", "limbeck-store.json", "objects/*/onnx/*"):  # fmt: skip
        for content in (b"", b"{}", b"[]", b"null", b"5", b"x", b"[" * 10**5, b'{"value": 5}', b"\xff"):
            yield Case("stores", f"{pattern} {content[:12]!r}", run, all_of(f"store/{pattern}", content), None)
    yield Case("stores", "gc of a folder that is none", ("gc", "--all", "--store", "data"), None, False)


def all_of(pattern: str, content: bytes):
    def change():
        for path in Path().glob(pattern):
            if path.is_file():
                path.write_bytes(content)

    return change


def ledgers():
    commands = (("report", "run"), ("lineage", "run", "a"), ("save", "run", "a", "--to", "to"), ("gc", "run"))
    contents = [
        b"",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"x\n",
        b"[" * 10**5,
        b"\xff\n",
        b'{"event": "run"}\n',
        b'{"event": 5}\n',
    ]
    for command, content in itertools.product(commands, contents):
        name = f"{command[0]} {content[:12]!r}"
        yield Case("ledgers", name, (*command, "--store", "store")[: 3 if command[0] == "lineage" else 9],
                   write("run/ledger.jsonl", content), False)  # fmt: skip
    for number in range(24):
        yield Case(
            "ledgers",
            f"report damaged {number}",
            ("report", "run", "--store", "store"),
            damaged("run/ledger.jsonl", number),
        )
    for folder in ("nowhere", "data", TASK, "/dev/null", "x\0"):
        yield Case("ledgers", f"report {folder!r}", ("report", folder), None, False)


def standard_input():
    texts = [
        b"", b"\n", b"\0\n", b"\xff\n", b"a\n\xe9\n", "text".encode("utf-16"), b"\xef\xbb\xbfa\n", b"a\r\nb\r\n",
        b"x" * 10**6, b"\n" * 200, b"\xed\xa0\x80\n", "é漢😀\n".encode(), b"\x1b[31m\n", b"a" * (2**26 + 2),
    ]  # fmt: skip
    for number, raw in enumerate(texts):
        for more in ((), ("--json",)):
            name = f"{number}: {raw[:12]!r} {' '.join(more)}"
            yield Case("standard input", name, ("predict", MODEL, *more), None, None, raw)


CLASSES = (
    recipes, yaml, configurations, tokenizers, weights, graphs, data_files, options, stores, ledgers, standard_input,
)  # fmt: skip

# --- one input ------------------------------------------------------------------------------------------------------


def call(case: Case, limit: float = 600) -> Outcome:
    """Carry out a command in a forked process."""
    read, written = os.pipe()
    start = time.monotonic()
    if not (child := os.fork()):
        os.close(read)
        os.setsid()
        try:
            answer = json.dumps(_carry_out(case))
        except BaseException:
            answer = json.dumps({"problem": traceback.format_exc()})
        with os.fdopen(written, "w") as stream:
            stream.write(answer)
        os._exit(0)
    os.close(written)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, limit)
    with os.fdopen(read) as stream:
        answer = stream.read()
    _, status, usage = os.wait4(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = usage.ru_utime + usage.ru_stime
    if not answer:
        late = time.monotonic() - start > limit
        problem = f"did not end within {limit} s" if late else f"ended by signal {os.waitstatus_to_exitcode(status)}"
        return Outcome(problem=problem, seconds=max(seconds, limit if late else 0))
    return Outcome(**json.loads(answer), seconds=seconds)


def _carry_out(case: Case) -> dict:
    from limbeck import cli
    from limbeck.engine.store.store import Store
    from limbeck.measure import isolation
    from limbeck.train import loop

    worked, out, err = [], io.StringIO(), io.StringIO()

    def noted(name, function):
        def noting(*arguments, **options):
            worked.append(name)
            return function(*arguments, **options)

        return noting

    if case.change is not None:
        case.change()
    with contextlib.ExitStack() as stack:
        for owner, name in ((loop, "fit"), (isolation, "run_isolated"), (Store, "put")):
            stack.enter_context(mock.patch.object(owner, name, noted(name, getattr(owner, name))))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(mock.patch.object(sys, "argv", ["limbeck", *case.command]))
        stack.enter_context(mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(case.stdin))))
        status, problem = 0, ""
        try:
            cli.main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            problem = traceback.format_exc()
    return {
        "status": status,
        "text": out.getvalue()[-20_000:] + err.getvalue()[-20_000:],
        "problem": problem,
        "worked": worked,
    }


def judge(case: Case, outcome: Outcome, outside: bool) -> list[str]:
    """Return the verdicts on an outcome; the first is the column that it is counted in."""
    faults = []
    if outcome.problem or "Traceback (most recent call last)" in outcome.text:
        faults.append("traceback")
    elif outcome.status in (0, 3):
        faults += ["wrongly accepted"] if case.valid is False else []
    elif outcome.worked:
        faults.append("late")
    elif outcome.status != 2 or not outcome.text.strip() or len(outcome.text) > MAX_MESSAGE:
        faults.append("unclear")
    if outcome.seconds > MAX_SECONDS and not (outcome.status in (0, 3) and outcome.worked):
        faults.append("slow")
    if outside:
        faults.append("outside")
    return faults or ["accepted" if outcome.status in (0, 3) else "one clear error"]


def attempt(case: Case, good: Path, folder: Path) -> tuple[list[str], Outcome]:
    """Carry out a case in a copy of the good files."""
    work = folder / "work"
    shutil.copytree(good, work)
    before = sorted(path.name for path in folder.iterdir())
    with contextlib.chdir(work):
        outcome = call(case, MAX_WALL)
    outside = sorted(path.name for path in folder.iterdir()) != before
    shutil.rmtree(folder)
    folder.mkdir()
    return judge(case, outcome, outside), outcome


COLUMNS = ("one clear error", "accepted", "traceback", "late", "slow", "unclear", "wrongly accepted", "outside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", help="kinds of input")
    parser.add_argument("--list", action="store_true", help="print every input with its outcome")
    arguments = parser.parse_args()
    cases = [case for cases in CLASSES for case in cases() if not arguments.only or case.kind in arguments.only]
    table, faults = defaultdict(Counter), 0
    with tempfile.TemporaryDirectory() as place:
        good, folder = Path(place) / "good", Path(place) / "folder"
        folder.mkdir()
        build(good)
        for case in cases:
            verdicts, outcome = attempt(case, good, folder)
            table[case.kind].update(["inputs", *verdicts])
            bad = verdicts[0] not in COLUMNS[:2]
            faults += bad
            if bad or arguments.list:
                lines = (outcome.problem or outcome.text).strip().splitlines() or [""]
                said = " / ".join(lines if arguments.list else lines[-3:])[:600]
                print(f"{', '.join(verdicts)}: {case.kind}: {case.name} ({outcome.seconds:.1f} s): {said}", flush=True)
    total = sum(table.values(), Counter())
    print("\n| class | inputs | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * (1 + len(COLUMNS)))
    for kind, counts in [*table.items(), ("all", total)]:
        print(f"| {kind} | {counts['inputs']} | " + " | ".join(str(counts[column]) for column in COLUMNS) + " |")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
