"""INT8 graphs of every family beside the family's own model in eager PyTorch, with random weights of real shapes.

    python benchmarks/families.py --tokens 32 128 512
    python benchmarks/families.py --models mpnet-base ettin-17m

One thread, batch 1, texts of the given number of tokens. Within a family and a length the two take turns; the ratio is
the median over turns, with a 95 % bootstrap interval. ``error`` is the mean distance between the logits of INT8 and of
torch, as a part of their standard deviation over texts: BERT's is there for comparison. Prints JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers

from limbeck.core.measurement import environment
from limbeck.model.onnx.graph import LONG_TEXT
from limbeck.model.onnx.onnx_model import open_session, parts
from limbeck.model.onnx.quantization import Int8, quantizable_modules, quantize
from limbeck.model.pretrained import load_pretrained

MODELS = {
    "bert-base": ("bert", {}),
    "minilm-l6": (
        "bert",
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "mpnet-base": ("mpnet", {"max_position_embeddings": 514}),
    "modernbert-base": ("modernbert", {}),
    "ettin-17m": (
        "modernbert",
        {"hidden_size": 256, "num_hidden_layers": 7, "num_attention_heads": 4, "intermediate_size": 384},
    ),
    "deberta-v3-small": (
        "deberta-v2",
        {
            "vocab_size": 128100,
            "hidden_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "max_relative_positions": -1,
        },
    ),
}


def random_model(name):
    """Return transformers' own model, in eager PyTorch, with weights of a trained model's size."""
    family, settings = MODELS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **settings, num_labels=2)
    model = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, 0.04)
    return model.eval()


def int8_session(model, texts, threads, long_texts=False):
    """Return a session of the INT8 graph, as it is written for short or long texts, and its error on texts."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        ours = load_pretrained(folder)
    blueprint, weights = parts(ours, long_texts=long_texts)
    graph = quantize(blueprint, weights, Int8(frozenset(quantizable_modules(blueprint, weights)), reduce_range=False))
    session = open_session(graph, threads)
    expected = np.concatenate([answer(model, text) for text in texts])
    seen = np.concatenate([session.run(None, feed(session, text))[0] for text in texts])
    return session, float(np.abs(seen - expected).mean() / expected.std())


def answer(model, ids):
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits.numpy()


def feed(session, ids):
    values = {"input_ids": ids.numpy(), "attention_mask": np.ones(ids.shape, np.int64)}
    values["token_type_ids"] = np.zeros(ids.shape, np.int64)
    return {entry.name: values[entry.name] for entry in session.get_inputs()}


def alternated(first, second, seconds):
    """Time two calls in turns; return their milliseconds [turns, 2]."""
    first(), second()
    rows, start = [], time.perf_counter()
    while len(rows) < 10 or time.perf_counter() - start < seconds:
        row = []
        for call in (first, second):
            begin = time.perf_counter()
            call()
            row.append((time.perf_counter() - begin) * 1000)
        rows.append(row)
    return np.array(rows)


def interval(ratios, generator):
    medians = np.median(generator.choice(ratios, (1000, len(ratios))), axis=1)
    return [round(float(x), 2) for x in (np.median(ratios), *np.quantile(medians, [0.025, 0.975]))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each comparison")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator, table = np.random.default_rng(0), []
    for name in arguments.models:
        model = random_model(name)
        longest = model.config.max_position_embeddings - 2
        texts = [torch.randint(5, 30000, (1, 32)) for _ in range(64)]
        sessions = {long_texts: int8_session(model, texts, 1, long_texts) for long_texts in (False, True)}
        for tokens in arguments.tokens:
            ids = torch.randint(5, 30000, (1, min(tokens, longest)))
            session, error = sessions[ids.shape[1] >= LONG_TEXT]
            calls = (partial(answer, model, ids), partial(session.run, None, feed(session, ids)))
            times = alternated(*calls, arguments.seconds)
            eager, int8 = np.median(times, axis=0)
            row = {"model": name, "tokens": ids.shape[1], "eager_ms": round(eager, 2), "int8_ms": round(int8, 2)}
            row |= {"ratio": interval(times[:, 0] / times[:, 1], generator), "turns": len(times)}
            table.append(row | {"error": round(error, 3)})
            print(json.dumps(table[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"machine": environment(), "threads": 1, "batch": 1, "table": table}, indent=2))


if __name__ == "__main__":
    main()
