"""CPU time of --help, check and plan, and of opening a stored model with and without its digest.

    python benchmarks/startup.py --megabytes 90 --rounds 9

Each command is a fresh process, in turns with the others; user and system time of the process count, so a busy machine
disturbs little. The stored model has weights of so many MB; its digest is computed once in a process, so each opening
is timed in a process of its own, after the imports. Medians with the smallest and the largest. To compare two versions,
run this file under each with PYTHONPATH.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from limbeck.core.measurement import environment

COMMANDS = {"--help": ["--help"], "check": ["check", "quickstart"], "plan": ["plan", "quickstart"]}
OPEN = """
import json, sys, time
import limbeck.model.checkpoints, transformers
from limbeck.engine.store.store import Store
store, key, how = Store(sys.argv[1]), sys.argv[2], sys.argv[3]
start = time.process_time()
if how == "with its digest":
    store.open(key)
else:
    store.open_model(store.objects / key)
print(time.process_time() - start)
"""


def command_seconds(arguments: list[str], store: Path) -> float:
    """CPU seconds of a command."""
    environ = {**os.environ, "LIMBECK_STORE": str(store), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "limbeck", *arguments], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"limbeck {' '.join(arguments)} failed")
    return usage.ru_utime + usage.ru_stime


def opening_seconds(store: Path, key: str, how: str) -> float:
    """CPU seconds of opening a stored model in a process that has imported everything."""
    ran = subprocess.run([sys.executable, "-c", OPEN, store, key, how], capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    return float(ran.stdout.split()[-1])


def put_model(root: Path, megabytes: float) -> str:
    """Store a BERT with random weights of about this size; return its key."""
    from limbeck.core.candidate import Candidate
    from limbeck.data.synthetic import toy_task, toy_tokenizer
    from limbeck.engine.store.store import Store
    from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification

    task = toy_task(train=8)
    tokenizer = toy_tokenizer(task)
    layers, heads, ffn = 6, 12, 1536
    rows = max(len(tokenizer), int((megabytes * 1e6 / 4 - layers * (4 * 384 * 384 + 2 * 384 * ffn)) / 384))
    config = LimbeckConfig(
        hidden_size=384,
        head_dim=32,
        layer_heads=[heads] * layers,
        layer_ffn=[ffn] * layers,
        vocab_size=rows,
        num_labels=3,
    )
    store = Store(root)
    store.prepare()
    store.put("0" * 16, Candidate(LimbeckForSequenceClassification(config), tokenizer, task), {})
    return "0" * 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=90.0)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "store"
        key = put_model(store, arguments.megabytes)
        size = (store / "objects" / key / "model.safetensors").stat().st_size
        calls = {name: lambda words=words: command_seconds(words, store) for name, words in COMMANDS.items()}
        for how in ("with its digest", "without"):
            calls[f"opening {how}"] = lambda how=how: opening_seconds(store, key, how)
        for call in calls.values():
            call()  # files into the page cache, modules compiled
        seconds = {name: [] for name in calls}
        for _ in range(arguments.rounds):
            for name, call in calls.items():
                seconds[name].append(call())
    table = {
        name: {"median": round(statistics.median(row), 3), "low": round(min(row), 3), "high": round(max(row), 3)}
        for name, row in seconds.items()
    }
    setting = {"rounds": arguments.rounds, "megabytes": round(size / 1e6, 1), "unit": "CPU seconds"}
    print(json.dumps({"machine": environment(), **setting, "table": table}, indent=2))


if __name__ == "__main__":
    main()
