"""What the runtimes' own tools make of a model of transformers: exported, fused, quantized."""

import inspect
import json

import numpy as np
import torch

from limbeck.measure.backends import import_runtime

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SAME = 1e-3  #: logits of the exported graph and of torch differ by less, or the export is refused


def inputs_of(model):
    """Names of the inputs that a model reads."""
    return [name for name in INPUTS if name in inspect.signature(model.forward).parameters]


def onnx(model, folder):
    """Export by ``torch.onnx`` and fuse by ONNX Runtime's optimizer: the path of the float graph.

    ``model`` computes attention eagerly, the form that the optimizer knows. It has no pattern for MPNet's attention
    with relative positions: there it fuses the rest, and attention stays in standard operators.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    traced, path = folder / "traced.onnx", folder / "float.onnx"
    names, bert = inputs_of(model), model.config.model_type == "bert"
    torch.onnx.export(
        model,
        (example(model),),  # by name: the models differ in the order of their inputs
        str(traced),
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names},
        opset_version=17,
        dynamo=False,
    )
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    if bert:  # where heads were pruned, their number and width are not those of the configuration
        attention = model.base_model.encoder.layer[0].attention.self
        heads, width = attention.num_attention_heads, attention.query.out_features
    fused = optimize_model(
        str(traced),
        model_type="bert",
        num_heads=heads,
        hidden_size=width,
        optimization_options=FusionOptions("bert"),
    )
    operators = fused.get_fused_operator_statistics()
    if bert and operators["Attention"] != len(model.base_model.encoder.layer):
        raise RuntimeError(f"ONNX Runtime's optimizer did not fuse attention: {json.dumps(operators)}")
    fused.save_model_to_file(str(path))
    traced.unlink()
    check(model, path)
    return path


def example(model, length=8, seed=0):
    """Inputs of one text without meaning."""
    ids = torch.from_numpy(np.random.default_rng(seed).integers(5, 500, (1, length)))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return {name: inputs[name] for name in inputs_of(model)}


def check(model, path):
    """Refuse a graph that answers otherwise than the model it was made from."""
    from limbeck.model.onnx.onnx_model import open_session

    session = open_session(path)
    names = [entry.name for entry in session.get_inputs()]
    for length in (5, 40):
        inputs = example(model, length)
        with torch.inference_mode():
            reference = model(**inputs).logits.numpy()
        error = np.abs(session.run(None, {name: inputs[name].numpy() for name in names})[0] - reference).max()
        if error > SAME:
            raise RuntimeError(f"{path}: logits of {length} tokens are {error:.2g} from those of torch")


def onnx_int8(path, out):
    """Quantize a fused graph by ``quantize_dynamic``, per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        path,
        out,
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": 1},
    )
    return out


def openvino(model, folder):
    """Convert by OpenVINO from torch, in its default: weights kept in float16."""
    runtime = import_runtime("openvino")

    converted = runtime.convert_model(model, example_input=example(model))
    runtime.save_model(converted, folder / "float.xml")
    return folder / "float.xml"


def openvino_int8(model, folder, texts):
    """Quantize after training by NNCF, in its defaults for transformers; ``texts``: inputs to calibrate with."""
    import nncf

    runtime = import_runtime("openvino")

    converted = runtime.convert_model(model, example_input=example(model))
    quantized = nncf.quantize(
        converted, nncf.Dataset(texts), subset_size=len(texts), model_type=nncf.ModelType.TRANSFORMER
    )
    runtime.save_model(quantized, folder / "int8.xml")
    return folder / "int8.xml"
