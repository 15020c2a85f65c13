"""What INT8 changes: every quantized model of a run beside the float model that it was made of, text by text.

    python benchmarks/rounding.py runs/sst2 --split test

For each: by how much its logits move (root mean square, each text's logits centred) beside their own spread, on how
many texts its answer is another one, and the accuracy of both. The store of the run must still hold the models.
"""

import argparse

import numpy as np

from limbeck.data.batching import encode, predict
from limbeck.engine.result import read_result
from limbeck.report.display_names import changed_parameters


def logits(candidate, split):
    """Logits [texts, classes], a text a call, as they are served; and the labels [texts]."""
    encoded = encode(candidate.task, split, candidate.tokenizer)
    return predict(candidate.model, encoded, 1), np.array(encoded.labels)


def difference(logits, reference):
    """By how much logits differ from others, and how far these spread; [texts, classes], a constant left out."""
    logits, reference = (values - values.mean(1, keepdims=True) for values in (logits, reference))
    return float(np.sqrt(np.square(logits - reference).mean())), float(reference.std())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    result = read_result(arguments.run)
    print("shape | quantize | logits move by | their spread | answers changed | accuracy in float | in INT8")
    for key, record in result.records.items():
        if record.step != "quantize":
            continue
        float_logits, labels = logits(result.open(record.parent), arguments.split)
        int8_logits, _ = logits(result.open(key), arguments.split)
        error, spread = difference(int8_logits, float_logits)
        answers = [answer.argmax(1) for answer in (float_logits, int8_logits)]
        changed = int((answers[0] != answers[1]).sum())
        right = " | ".join(f"{100 * (answer == labels).mean():.1f}" for answer in answers)
        print(
            f"{record.shape} | {changed_parameters(record)} | {error:.3f} | {spread:.2f} "
            f"| {changed} of {len(labels)} | {right}"
        )


if __name__ == "__main__":
    main()
