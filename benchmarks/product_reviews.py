"""Make a small data set of product reviews: snippets of reviews with the sign of their mean human rating.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    python benchmarks/product_reviews.py vaderSentiment-3.3.2.tar.gz benchmarks/data/product-reviews

The ratings (some 20 for each snippet, from -4 to 4) are those of C.J. Hutto and E. Gilbert, "VADER: A Parsimonious
Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014; MIT licence. Snippets rated between -0.5 and
0.5 and repeats are left out.
"""

import argparse
import csv
import io
import random
import tarfile
from pathlib import Path

ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILE = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
HELD_OUT = {"validation": 500, "test": 500}


def snippets(package: Path) -> dict[str, int]:
    """Return the label of each snippet, 1 where the mean rating is positive."""
    with tarfile.open(package) as outer, tarfile.open(fileobj=outer.extractfile(ARCHIVE)) as inner:
        lines = io.TextIOWrapper(inner.extractfile(FILE), encoding="utf-8", errors="replace").read().splitlines()
    labels = {}
    for line in lines:
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= 0.5:
            labels.setdefault(text.strip(), int(float(rating) > 0))
    return labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="source package of vaderSentiment")
    parser.add_argument("out", type=Path, help="new folder")
    arguments = parser.parse_args()
    rows = list(snippets(arguments.package).items())
    random.Random(0).shuffle(rows)
    arguments.out.mkdir(parents=True)
    for name, count in {"train": len(rows) - sum(HELD_OUT.values()), **HELD_OUT}.items():
        part, rows = rows[:count], rows[count:]
        with open(arguments.out / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(part)
        print(f"{name}: {len(part):,} snippets")


if __name__ == "__main__":
    main()
