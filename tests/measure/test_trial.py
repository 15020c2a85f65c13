from dataclasses import replace

import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, graph_of, style_of
from limbeck.measure.trial import Trial, memory_session, session, time_trial
from limbeck.model.encoder import Style
from limbeck.model.onnx.onnx_model import write

SUPER = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
SMALL = Shape.uniform(layers=1, hidden=16, heads=2, ffn=32, head_dim=8)
TORCH, ONNX = (Setting(style_of(Style()), Target(runtime=runtime)) for runtime in ("torch", "onnxruntime"))


@pytest.mark.parametrize(
    "trial",
    [
        Trial(SMALL, ONNX, 20, lengths=(4, 9)),
        Trial(SMALL, replace(ONNX, number_format="int8"), 20),
        Trial(SMALL, TORCH, 20, within=SUPER),
        Trial(SMALL, replace(TORCH, target=Target(runtime="torch", precision="bfloat16")), 20, within=SUPER),
        Trial(SMALL, replace(ONNX, target=Target(precision="float16")), 20),
    ],
)
def test_the_first_calls_do_not_count(trial):
    assert Trial.from_json(trial.to_json()) == trial
    seconds = session({"trial": trial.to_json()})["seconds"]
    assert seconds.shape == (18,)
    assert (seconds > 0).all()


@pytest.mark.slow
def test_it_runs_in_a_process_of_its_own():
    assert time_trial(Trial(SMALL, ONNX, 4, warmup_ratio=0.5)).shape == (2,)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_memory_is_that_of_the_graph_in_the_file(runtime, tmp_path, monkeypatch):
    """Not of one that is made while the memory is measured."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    setting = replace(ONNX, target=Target(runtime=runtime))
    file = write(graph_of(SMALL, setting), tmp_path / "model.onnx")
    monkeypatch.setattr("limbeck.measure.dummy_model.graph_of", None)
    payload = {"trial": Trial(SMALL, setting, lengths=(4, 9)).to_json(), "file": str(file), "calls": 2}
    assert isinstance(memory_session(payload)["bytes"], int)


def test_what_cannot_be_timed_is_refused():
    for trial, message in (
        (Trial(SMALL, ONNX, within=SUPER), "only the runtime torch"),
        (Trial(SUPER, TORCH, within=SMALL), "is not a slice"),
        (Trial(SMALL, ONNX, 0), "at least 1"),
        (Trial(SMALL, ONNX, lengths=(0, 4)), "lengths"),
    ):
        with pytest.raises(InputError, match=message):
            trial.check()
