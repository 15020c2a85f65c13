import csv
import io
from dataclasses import replace

from limbeck.core.candidate import Record
from limbeck.core.measurement import Measurement
from limbeck.core.shape import LayerShape, Shape
from limbeck.report.evaluated_shapes import shapes_csv
from limbeck.search.evaluated_shapes import evaluated_shapes

SMALL = Shape.uniform(layers=1, hidden=32, heads=2, ffn=64)
RAGGED = Shape(32, 16, (LayerShape(2, 64), LayerShape(1, 16)))


def table(*records):
    return list(csv.DictReader(io.StringIO(shapes_csv(records))))


def test_every_shape_is_a_line_the_best_first():
    cost = Measurement("latency_p50", 0.001, "s")
    fact = evaluated_shapes({SMALL: 0.7, RAGGED: 0.8}, [0.001, 0.002], [RAGGED], cost, "accuracy", "validation")
    best, other = table(Record("a", None, "search", facts=(fact,)))
    assert (best["shape"], best["heads"], best["ffn"], best["winner"]) == (str(RAGGED), "2 1", "64 16", "yes")
    assert (best["accuracy_validation"], best["latency_ms"]) == ("0.8", "2.0")
    assert (other["shape"], other["layers"], other["winner"]) == (str(SMALL), "1", "")
    again = Measurement.from_json(fact.to_json())
    assert table(Record("a", None, "search", facts=(again,))) == [best, other]


def test_searches_by_other_costs_have_columns_of_their_own():
    latency = evaluated_shapes({SMALL: 0.7}, [0.001], [SMALL], Measurement("latency_p50", 0.001, "s"), "f1", "test")
    macs = evaluated_shapes({SMALL: 0.6}, [5e6], [SMALL], Measurement("macs", 5e6, "MAC"), "f1", "test")
    record = Record("a", None, "search", facts=(latency,))
    first, second = table(record, replace(record, key="b", facts=(macs,)))
    assert (first["search"], first["latency_ms"], first["macs"]) == ("a", "1.0", "")
    assert (second["search"], second["latency_ms"], second["macs"]) == ("b", "", "5000000.0")
    assert shapes_csv([replace(record, facts=())]) == ""
