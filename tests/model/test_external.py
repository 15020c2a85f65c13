from __future__ import annotations

import numpy as np
import onnx
import pytest

from limbeck.errors import InputError
from limbeck.model import external
from limbeck.model.onnx.onnx_model import OnnxModel, answer, open_session, parts, read_parts, to_onnx, write
from limbeck.model.onnx.quantization import Int8, calibrate, errors, quantizable_modules, quantize, sensitivity
from limbeck.model.onnx.smooth_quant import divisors
from limbeck.model.onnx.vnni_emulation import integer, saturating

FAMILIES = {
    "bert": {},
    "roberta": {"family": "roberta", "token_types": 1, "position_offset": 1, "pad_token_id": 1},
    "electra": {"family": "electra", "embedding_size": 16, "pooler": "gelu"},
    "mpnet": {"family": "mpnet", "token_types": 0, "position_offset": 1, "relative_buckets": 32, "relative_heads": 4},
    "deberta-v2": {
        "family": "deberta-v2",
        "token_types": 0,
        "pos_att_type": ("c2p", "p2c"),
        "share_att_key": True,
        "max_relative_positions": 5,
        "masks_queries": True,
    },
}


@pytest.fixture
def low_limit(monkeypatch):
    """Let every graph above 10 kB count as too large for a protocol buffer."""

    def lower(limit=10_000):
        monkeypatch.setattr(external, "LIMIT", limit)

    return lower


def feed(model, batch):
    """What the graph of a model reads, as arrays."""
    types = {"token_type_ids"} if model.encoder.style.token_types > 1 else set()
    return {name: batch[name].numpy() for name in {"input_ids", "attention_mask"} | types}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_large_and_small_files_hold_the_same_model(tmp_path, make_model, make_batch, low_limit, family, fused):
    model, batch = make_model(**FAMILIES[family]), make_batch()
    small = OnnxModel(tmp_path, to_onnx(model, tmp_path / "small.onnx", fused=fused).name, model.config.to_dict())
    low_limit()
    large = OnnxModel(tmp_path, to_onnx(model, tmp_path / "large.onnx", fused=fused).name, model.config.to_dict())
    np.testing.assert_array_equal(large.predict(batch), small.predict(batch))
    blueprint, weights = read_parts(small.path)
    again, mapped = read_parts(large.path)
    assert again == blueprint
    assert weights.keys() == mapped.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(mapped[name], array)
    assert large.path.stat().st_size < 0.5 * small.path.stat().st_size
    assert large.size_bytes == sum((tmp_path / name).stat().st_size for name in ("large.onnx", "large.onnx_data"))


def test_offsets_are_aligned_and_the_location_is_relative(tmp_path, make_model, low_limit):
    low_limit()
    path = to_onnx(make_model(), tmp_path / "onnx" / "model.onnx")
    entries = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.external_data
    ]
    assert len(entries) > 8
    assert {entry["location"] for entry in entries} == {"model.onnx_data"}
    assert not any(int(entry["offset"]) % external.ALIGNMENT for entry in entries)
    onnx.checker.check_model(onnx.load(path))  # as the library itself puts it together


@pytest.mark.parametrize("ranges", [{}, (-3.0, 3.0)], ids=["dynamic", "static"])
@pytest.mark.parametrize("fused", [True, False])
def test_int8_graphs_answer_the_same_in_memory_and_from_the_file(
    tmp_path, make_model, make_batch, low_limit, fused, ranges
):
    model, batch = make_model(), make_batch()
    graph_parts = parts(model, fused=fused)
    names = quantizable_modules(*graph_parts)
    int8 = Int8(frozenset(names), ranges=dict.fromkeys(names, ranges) if ranges else {})
    small = answer(open_session(quantize(*graph_parts, int8)), batch)
    low_limit()
    graph = quantize(*graph_parts, int8)
    assert isinstance(graph, external.LargeGraph)
    np.testing.assert_array_equal(answer(open_session(graph), batch), small)
    write(graph, tmp_path / "int8.onnx")
    np.testing.assert_array_equal(answer(open_session(tmp_path / "int8.onnx"), batch), small)


def test_calibration_and_trials_do_not_depend_on_the_size(tmp_path, make_model, make_batch, low_limit):
    model = make_model()
    batches = [feed(model, make_batch(seed=seed, rows=1)) for seed in range(6)]

    def results(path):
        graph_parts = read_parts(path)
        int8 = Int8(frozenset(quantizable_modules(*graph_parts)))
        return (
            calibrate(*graph_parts, batches),
            {name: array.tolist() for name, array in errors(*graph_parts, {"all": int8}, batches).items()},
            sensitivity(*graph_parts, int8, batches[:1]),
            {name: array.tolist() for name, array in divisors(*graph_parts, int8, batches).items()},
        )

    small = results(to_onnx(model, tmp_path / "small.onnx"))
    low_limit()
    assert results(to_onnx(model, tmp_path / "large.onnx")) == small


@pytest.mark.parametrize("ranges", [{}, (-3.0, 3.0)], ids=["dynamic", "static"])
def test_saturation_reads_weights_outside_of_the_graph(tmp_path, make_model, make_batch, low_limit, ranges):
    graph_parts, batch = parts(make_model(), fused=not ranges), make_batch()
    names = quantizable_modules(*graph_parts)
    fixed = dict.fromkeys(names, ranges) if ranges else {}
    int8 = Int8(frozenset(names), reduce_range=False, ranges=fixed)
    clipped, pairs = saturating(integer(quantize(*graph_parts, int8)))
    assert pairs > 0
    expected = answer(open_session(clipped, exact=True), batch)
    low_limit()
    path = write(quantize(*graph_parts, int8), tmp_path / "int8.onnx")
    large, count = saturating(integer(external.load(path)))
    assert count == pairs
    assert isinstance(large, external.LargeGraph)
    np.testing.assert_array_equal(answer(open_session(large, exact=True), batch), expected)


def test_blocks_of_a_table_make_no_difference(make_model, monkeypatch):
    graph_parts = parts(make_model())
    int8 = Int8(frozenset(quantizable_modules(*graph_parts)))
    whole = quantize(*graph_parts, int8)
    monkeypatch.setattr("limbeck.model.onnx.quantization.BLOCK", 7)
    assert quantize(*graph_parts, int8) == whole


def test_a_smaller_model_in_the_same_place_leaves_no_data(tmp_path, make_model, make_batch, low_limit, monkeypatch):
    low_limit()
    path = to_onnx(make_model(), tmp_path / "model.onnx")
    session, batch = open_session(path), make_batch()
    before = answer(session, batch)
    low_limit(10**9)
    to_onnx(make_model(seed=1), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    np.testing.assert_array_equal(answer(session, batch), before)  # an open session keeps what it was opened with


def test_damaged_external_data_is_named(tmp_path, make_model, low_limit):
    low_limit()
    path = to_onnx(make_model(), tmp_path / "model.onnx")
    data = tmp_path / "model.onnx_data"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cut off"):
        read_parts(path)
    with pytest.raises(InputError, match="cannot be opened"):
        open_session(path)
    data.unlink()
    with pytest.raises(InputError, match=r"weights in model\.onnx_data, which is not there; copy both files"):
        read_parts(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", ""])
def test_data_in_another_folder_is_refused(tmp_path, make_model, low_limit, location):
    low_limit()
    path = to_onnx(make_model(), tmp_path / "model.onnx")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match="expected a file beside"):
        external.load(path)


def test_files_are_the_graph_and_its_data_alone(tmp_path):
    for name in ("model.onnx", "model.onnx_data", "model.onnx.bak", "model.onnx.data", "model_quantized.onnx"):
        (tmp_path / name).write_bytes(b"")
    names = [file.name for file in external.files(tmp_path / "model.onnx")]
    assert names == ["model.onnx", "model.onnx_data", "model.onnx.data"]


def test_a_session_keeps_the_arrays_that_it_points_into(make_model, make_batch, low_limit):
    import gc

    batch = make_batch()
    expected = answer(open_session(quantize(*parts(make_model()), Int8(frozenset()))), batch)
    low_limit()
    session = open_session(quantize(*parts(make_model()), Int8(frozenset())))
    gc.collect()
    filled = [np.full(1000, 7.0, np.float32) for _ in range(2000)]  # what is freed by mistake is written over
    np.testing.assert_array_equal(answer(session, batch), expected)
    assert len(filled) == 2000
