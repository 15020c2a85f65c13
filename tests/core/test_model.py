from limbeck.core.model import Runnable, TrainableEncoder
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification
from limbeck.model.onnx.onnx_model import OnnxModel


def test_an_encoder_is_trainable():
    model = LimbeckForSequenceClassification(LimbeckConfig(8, 8, [1], [8], vocab_size=10, max_positions=8))
    assert isinstance(model, TrainableEncoder)
    assert isinstance(model, Runnable)


def test_a_graph_answers_and_has_no_weights_to_train(tmp_path):
    config = {"hidden_size": 8, "head_dim": 8, "layer_heads": [1], "layer_ffn": [8]}
    graph = OnnxModel(tmp_path, "model.onnx", config)
    assert isinstance(graph, Runnable)
    assert not isinstance(graph, TrainableEncoder)
