"""Nothing phones home: ONNX Runtime's telemetry is off before it is imported, and no command looks up a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from limbeck.measure.isolation import run_isolated
from limbeck.report.serving_example import example

THREADS = "import os; print(len(os.listdir('/proc/self/task')))"
PLAIN = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}


def python(code: str, **settings: str) -> str:
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=PLAIN | settings, capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout.strip()


def test_importing_limbeck_disables_telemetry_unless_the_user_decided():
    show = "import limbeck, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert python(show) == "1"
    assert python(show, ORT_DISABLE_TELEMETRY="0") == "0"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_the_runtime_starts_no_thread_of_its_own():
    load = "import onnxruntime.capi._pybind_state; " + THREADS
    assert python("import limbeck; " + load) == python(load, ORT_DISABLE_TELEMETRY="1")


def test_child_processes_have_it_too(tmp_path, monkeypatch):
    helper = "import os\ndef read(payload):\n    return {'value': os.environ.get('ORT_DISABLE_TELEMETRY')}\n"
    (tmp_path / "telemetry_helper.py").write_text(helper)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert run_isolated("telemetry_helper:read", {})["value"] == "1"


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_the_example_of_the_card_disables_it_before_the_import(kind):
    code = example(kind)
    assert code.index("ORT_DISABLE_TELEMETRY") < code.index("import onnxruntime")


NAMESPACE = """
import fcntl, json, os, socket, struct, subprocess, sys, threading
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(control, 0x8914, struct.pack("16sH14s", b"lo", 1, bytes(14)))  # SIOCSIFFLAGS: the loopback is up
open(sys.argv[1] + "/resolv.conf", "w").write("nameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n")
subprocess.run(["mount", "--bind", sys.argv[1] + "/resolv.conf", "/etc/resolv.conf"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
names = []
def record():
    while True:
        question, address = server.recvfrom(4096)
        names.append(question[12:].split(b"\\0")[0].decode("latin-1"))
        server.sendto(question[:2] + b"\\x81\\x83" + question[4:], address)  # no such host
threading.Thread(target=record, daemon=True).start()
for command in json.loads(sys.argv[2]):
    ran = subprocess.run(command, capture_output=True, text=True, cwd=sys.argv[1])
    if ran.returncode not in (0, 1, 3):  # 1: a step failed on so small a model; 3: no better than a constant answer
        sys.exit(f"{command}: {ran.returncode} {ran.stdout[-2000:]} {ran.stderr[-2000:]}")
print(json.dumps(names))
"""
"""Runs commands where the only network is a resolver that records what is asked; prints the names."""


def lookups(commands: list[list[str]], folder, **settings: str) -> list[str]:
    command = ["unshare", "-rnm", sys.executable, "-c", NAMESPACE, str(folder), json.dumps(commands)]
    environ = {name: value for name, value in PLAIN.items() if not name.startswith(("HF_", "TRANSFORMERS_"))} | settings
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def unshared() -> bool:
    try:
        return subprocess.run(["unshare", "-rnm", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not unshared(), reason="needs the right to make a network namespace")
def test_no_command_looks_up_a_host(tmp_path, make_model):
    from limbeck.data.synthetic import toy_task, toy_tokenizer
    from limbeck.model.checkpoints import save_model

    task = toy_task(train=24, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    (tmp_path / "data").mkdir()
    for name, split in task.splits.items():
        rows = zip(split.texts, split.labels, strict=True)
        lines = [json.dumps({"text": text, "label": task.label_names[int(label)]}) for text, label in rows]
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "toy.yaml").write_text(
        "model: ./model\ntask: {path: ./data, max_length: 32}\nallow_weak_teacher: true\n"
        "steps: [{finetune: {epochs: 1}}, export, quantize, latency, quality, {cheapest: {}}]\n"
    )
    limbeck = [sys.executable, "-m", "limbeck"]
    shared = ["--store", str(tmp_path / "store")]
    given = ["--task", "data", "--max-length", "32"]
    lookup = "import socket; socket.getaddrinfo('control.invalid', 80)"
    control = [sys.executable, "-c", f"import contextlib\nwith contextlib.suppress(OSError):\n    {lookup}"]
    commands = [
        [*limbeck, "run", "toy.yaml", *shared],
        [*limbeck, "compress", "model", *given, "--effort", "one-shot", "--allow-weak-teacher", *shared],
        [*limbeck, "evaluate", "model", *given],
        [*limbeck, "predict", "runs/toy/artefact", "a text"],
    ]
    assert lookups([control], tmp_path)  # the recording works
    assert lookups(commands, tmp_path) == []
