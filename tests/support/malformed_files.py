"""Good data files of every format, from which malformed ones are made."""

from __future__ import annotations

import csv
import io
import json

ROWS = [("text", "pair", "label")] + [(f"word {n} of a text", f"second {n}", ("up", "down")[n % 2]) for n in range(30)]


def _parquet():
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    columns = dict(zip(ROWS[0], map(list, zip(*ROWS[1:], strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _csv(delimiter):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(ROWS)
    return stream.getvalue().encode()


FILES = {
    "csv": [_csv(","), b"text,a,b\n" + b"x,0,1\ny,1,0\n" * 20, b"text,score\n" + b"a,0.5\nb,1.25\n" * 20],
    "tsv": [_csv("\t"), b"good\t1\nbad\t0\n" * 20],
    "jsonl": ["\n".join(json.dumps(dict(zip(ROWS[0], row, strict=True))) for row in ROWS[1:]).encode()],
    "json": [json.dumps([{"text": f"a {n}", "label": n % 2} for n in range(30)]).encode()],
    "conll": [b"".join(b"New B-LOC\nYork I-LOC\nis O\n\n" for _ in range(20))],
    "parquet": [_parquet()],
    "txt": [b"".join(b"New\tB-LOC\nYork\tI-LOC\n\n" for _ in range(20))],
}
