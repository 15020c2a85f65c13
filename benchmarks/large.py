"""Export, check, quantize, save and reopen a model above 2 GB: seconds, and peak memory as a multiple of its weights.

    python benchmarks/large.py                     # the shape of XLM-R-large: 24 layers of 1,024, 250,002 tokens
    python benchmarks/large.py --shape table       # one layer, and a single table of 2.17 GB
    python benchmarks/large.py --mode static --smooth

Weights are random. They are written by another process, so that making them counts for nothing. Every step runs in the
same process; the peak is that of its resident memory (Linux: VmHWM, set back before every step), which counts pages of
mapped files too. ``anonymous`` is what is resident after the step without such pages, which the system can drop.
Needs some 15 GB of disk below ``--folder``.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.measure.memory import forget_peak, peak

WORDS = [f"w{index}" for index in range(200)]
SHAPES: dict[str, dict[str, int]] = {
    "xlm-r-large": {"num_hidden_layers": 24, "vocab_size": 250_002},
    "table": {"num_hidden_layers": 1, "vocab_size": 530_000},
    "small": {"num_hidden_layers": 2, "vocab_size": 1000},
}


def write_checkpoint(folder: Path, shape: str) -> None:
    """A checkpoint of RoBERTa's family with random weights, as on the hub."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

    config = XLMRobertaConfig(
        **SHAPES[shape],
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    torch.manual_seed(0)
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    names = ("<s>", "<pad>", "</s>", "<unk>")
    vocabulary = {word: index for index, word in enumerate([*names, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    special = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), names, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=512, **special).save_pretrained(folder)


def texts(count: int) -> tuple[list[str], list[str]]:
    """Texts of 5 to 40 words, and labels."""
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(WORDS, rng.integers(5, 40))) for _ in range(count)]
    return rows, [("no", "yes")[index % 2] for index in range(count)]


def anonymous() -> int:
    """Bytes of resident memory that are no pages of files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


def only(technique: Any, candidate: Any, context: Any) -> Any:
    """The one candidate that a technique makes of another."""
    (result,) = technique.apply(candidate, context)
    return result


class Steps:
    """Runs steps and prints what each took."""

    def __init__(self, weights: int) -> None:
        self.weights = weights
        self.most = 0.0

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        """The result of a step."""
        gc.collect()
        forget_peak()
        start = time.perf_counter()
        result = call()
        seconds, highest = time.perf_counter() - start, peak()
        self.most = max(self.most, highest / self.weights)
        print(
            f"{name:24} {seconds:7.1f} s   peak {highest / 1e9:5.2f} GB = {highest / self.weights:4.2f} x weights   "
            f"anonymous {anonymous() / 1e9:5.2f} GB",
            flush=True,
        )
        return result


def work(source: Path, folder: Path, mode: str, smooth: bool, count: int) -> None:
    """The steps of a compression, one after the other."""
    from limbeck.core.candidate import Candidate
    from limbeck.core.step import RunContext
    from limbeck.data.loading import task_from_lists
    from limbeck.measure.evaluation import evaluate
    from limbeck.measure.memory import stored_bytes
    from limbeck.model.checkpoints import open_model, save_model
    from limbeck.techniques.export import Export
    from limbeck.techniques.quantize import Quantize

    weights = (source / "model.safetensors").stat().st_size
    print(f"weights {weights / 1e9:.2f} GB; process before {peak() / 1e9:.2f} GB")
    task = task_from_lists(
        "toy", **{name: texts(count) for name in ("train", "validation", "test")}, label_names=("no", "yes")
    )
    steps = Steps(weights)
    context = RunContext(scratch=folder / "scratch", log=lambda line: print(f"    {line}"))
    candidate = Candidate(*steps.run("open", partial(open_model, source, task=task)), task)
    candidate = steps.run("export and parity", partial(only, Export(parity_texts=count), candidate, context))
    files = sorted((candidate.model.folder / "onnx").iterdir())
    print(f"    {', '.join(f'{file.name} {file.stat().st_size}' for file in files)}; size {stored_bytes(candidate)}")
    steps.run("save the float model", partial(save_model, candidate.model, candidate.tokenizer, folder / "float"))
    quantize = Quantize(mode=mode, smooth=smooth, calibration_samples=count)
    candidate = steps.run("quantize", partial(only, quantize, candidate, context))
    steps.run("save the INT8 model", partial(save_model, candidate.model, candidate.tokenizer, folder / "int8"))
    del candidate
    for name in ("float", "int8"):
        opened = steps.run(f"reopen {name}", partial(open_model, folder / name, task=task))
        result = steps.run("evaluate", partial(evaluate, *opened, task))
        print(f"    accuracy {result.quality:.3f} of {result.examples} texts")
        del opened
    print(f"most: {steps.most:.2f} x weights")


def main() -> None:
    """Write the model, then work on it, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="xlm-r-large")
    parser.add_argument("--mode", choices=("dynamic", "static"), default="dynamic")
    parser.add_argument("--smooth", action="store_true")
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder unless given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="limbeck-large-", dir=given.folder) as name:
        folder = Path(name)
        for call, rest in (
            (write_checkpoint, (folder / "source", given.shape)),
            (work, (folder / "source", folder, given.mode, given.smooth, given.texts)),
        ):
            process = get_context("spawn").Process(target=call, args=rest)
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{call.__name__} ended with {process.exitcode}")


if __name__ == "__main__":
    main()
