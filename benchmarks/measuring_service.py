"""The p50 of a measuring service beside that of a local measurement, in turns on one machine.

    python benchmarks/measuring_service.py --model minilm-l6 --task movie-reviews --repetitions 10

Starts a service on localhost. Each repetition measures the model in INT8 once locally and once through the service, in
a random order, each in a fresh process as in a run. Prints both medians with their intervals, and the ratio of service
and local by repetition with its interval. Run it on an idle machine.
"""

import argparse
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runs import print_ratio

from limbeck.core.candidate import Candidate
from limbeck.core.measurement import environment
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.errors import ServiceError
from limbeck.measure.latency import Latency
from limbeck.measure.service.client import Service


def int8_candidate(model: str, task: str, folder: Path) -> Candidate:
    """The model with an untrained head, exported and quantized: the speed does not depend on the weights."""
    from limbeck.data.loading import load_task
    from limbeck.model.checkpoints import open_model, save_model
    from limbeck.model.onnx.onnx_model import INT8_FILE, parts, write
    from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize

    loaded = load_task(task)
    torch_model, tokenizer = open_model(model, task=loaded, seed=0)
    save_model(torch_model, tokenizer, folder)
    model_parts = parts(torch_model)
    write(quantize(*model_parts, Int8(frozenset(quantizable_modules(*model_parts)))), folder / INT8_FILE)
    config = folder / "config.json"
    runtime = {"limbeck_runtime": "onnxruntime"}
    config.write_text(json.dumps({**json.loads(config.read_text()), **runtime, "limbeck_onnx_file": INT8_FILE}))
    return Candidate(open_model(folder)[0], tokenizer, loaded, folder)


def start(folder: Path) -> tuple[subprocess.Popen, str]:
    """A service on localhost, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    os.environ["LIMBECK_TOKEN"] = secrets.token_hex(16)
    command = [sys.executable, "-m", "limbeck", "measure", "serve", "--port", port, "--store", str(folder / "store")]
    child, url = subprocess.Popen(command), f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            Service(url).health()
            return child, url
        except ServiceError:
            time.sleep(0.2)
    sys.exit("the service did not start")


def p50(candidate: Candidate, target: Target, rounds: int) -> float:
    """Seconds of the median call."""
    found = Latency.of(rounds=rounds, split="test").measure([candidate], RunContext(target=target))
    return next(fact.value for _, fact in found if fact.name == "latency_p50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm-l6")
    parser.add_argument("--task", default="movie-reviews")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rng, seconds = random.Random(0), {"local": [], "service": []}
    with tempfile.TemporaryDirectory() as folder:
        candidate = int8_candidate(options.model, options.task, Path(folder) / "model")
        child, url = start(Path(folder))
        try:
            targets = {"local": Target(threads=options.threads), "service": Target(threads=options.threads, url=url)}
            for repetition in range(options.repetitions):
                for name in rng.sample(list(targets), 2):
                    seconds[name].append(p50(candidate, targets[name], options.rounds))
                    print(f"{repetition + 1} {name}: {1e3 * seconds[name][-1]:.3f} ms", flush=True)
        finally:
            child.terminate()
            child.wait()
    print(f"{environment()['processor']}, {options.threads} threads, n = {options.repetitions} sessions each")
    print_ratio(seconds, "service", "local", "service over local", "the service is slower")


if __name__ == "__main__":
    main()
