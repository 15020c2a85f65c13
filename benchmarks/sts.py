"""A sentence-transformers folder opened as our encoder, beside transformers: hidden states, and STS-B.

    python benchmarks/sts.py FOLDER data/stsb/test.csv

Compares the last hidden states of the first 300 sentences with transformers' own model, in batches with padding, and
prints Spearman's correlation of the cosines of mean-pooled vectors with the scores of all pairs. The file has no
header: first sentence, second sentence, similarity from 0 to 5. Prints JSON.
"""

import argparse
import csv
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr

from limbeck.model.pretrained import load_pretrained

BATCH = 64


def batches(tokenizer, sentences):
    for start in range(0, len(sentences), BATCH):
        chosen = sentences[start : start + BATCH]
        yield tokenizer(chosen, padding=True, truncation=True, max_length=384, return_tensors="pt")


def pooled(hidden, mask):
    return ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("pairs")
    arguments = parser.parse_args()
    with open(arguments.pairs, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.folder)
    reference = transformers.AutoModel.from_pretrained(arguments.folder).eval()
    encoder = load_pretrained(arguments.folder).encoder
    sentences = [row[0] for row in rows] + [row[1] for row in rows]
    vectors, largest = [], 0.0
    with torch.inference_mode():
        for number, batch in enumerate(batches(tokenizer, sentences)):
            mask = batch["attention_mask"]
            hidden = encoder(batch["input_ids"], mask, batch.get("token_type_ids"))[0]
            vectors.append(pooled(hidden, mask))
            if number * BATCH < 300:
                expected = reference(**batch).last_hidden_state
                largest = max(largest, float((hidden - expected).abs()[mask.bool()].max()))
    table = np.concatenate(vectors)
    first, second = np.split(table / np.linalg.norm(table, axis=1, keepdims=True), 2)
    correlation = spearmanr((first * second).sum(1), [float(row[2]) for row in rows]).statistic
    spearman = round(100 * float(correlation), 2)
    print(json.dumps({"pairs": len(rows), "spearman": spearman, "largest_difference": largest}))


if __name__ == "__main__":
    main()
