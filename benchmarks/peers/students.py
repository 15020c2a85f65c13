"""Smaller students of a fine-tuned model, as other tools make them: fewer heads and neurons, or every second layer."""

import copy
import math
import tempfile
import time
from pathlib import Path

import torch

from limbeck.core.shape import Shape
from limbeck.data.batching import collate, encode
from limbeck.measure.timing import alternate
from limbeck.model.checkpoints import peek
from limbeck.model.onnx.onnx_model import open_session

from . import stock

SAMPLES = 1024  #: texts whose gradients say what matters


def every_second_layer(teacher):
    """Layers 2, 4, 6, … of the teacher with its embeddings and its head, as DistilBERT begins (arXiv:1910.01108)."""
    student = copy.deepcopy(teacher)
    encoder = student.base_model.encoder
    encoder.layer = torch.nn.ModuleList(encoder.layer[1::2])
    student.config.num_hidden_layers = len(encoder.layer)
    return student


def collect_gradients(model, tokenizer, task, batch=32):
    """Sum the gradients of the task's loss over some training texts; Torch-Pruning's Taylor importance reads them."""
    rows = encode(task, "train", tokenizer)
    count = min(SAMPLES, len(rows))
    model.zero_grad()
    for start in range(0, count, batch):
        inputs = collate(rows, range(start, min(start + batch, count)))
        model(**{name: value for name, value in inputs.items() if name != "index"}).loss.backward()


def pruned(teacher, keep):
    """The teacher with ``keep`` heads a layer and the same share of neurons, by Torch-Pruning (arXiv:2301.12900).

    First-order Taylor importance of groups, from the gradients that the teacher carries; the same widths in every
    layer, because ONNX Runtime's optimizer fuses attention with one number of heads. Embeddings and the width between
    layers stay; so do MPNet's heads, whose relative positions all layers share.
    """
    import torch_pruning

    model = copy.deepcopy(teacher)
    for parameter, source in zip(model.parameters(), teacher.parameters(), strict=True):
        parameter.grad = source.grad
    layers = model.base_model.encoder.layer
    heads = model.config.num_attention_heads
    ignored = [model.base_model.embeddings, model.base_model.pooler, model.classifier]
    projections, heads_too = {}, prunes_heads(model)
    for layer in layers:
        ignored.append(layer.output.dense)
        if not heads_too:
            ignored.append(layer.attention)
            continue
        ignored.append(layer.attention.output.dense)
        attention = layer.attention.self
        projections |= dict.fromkeys((attention.query, attention.key, attention.value), heads)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        stock.example(model),
        importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=1 - keep / heads,
        head_pruning_ratio=1 - keep / heads if heads_too else 0.0,
        round_to=8,
        num_heads=projections,
        prune_num_heads=heads_too,
        prune_head_dims=False,
        ignored_layers=[module for module in ignored if module is not None],
        output_transform=lambda outputs: outputs.logits.sum(),
    )
    pruner.step()
    for layer in layers if heads_too else ():
        attention = layer.attention.self
        attention.all_head_size = attention.query.out_features
        attention.num_attention_heads = attention.all_head_size // attention.attention_head_size
    model.zero_grad()
    return model.eval()


def prunes_heads(model):
    """Whether Torch-Pruning can take heads from this architecture."""
    return model.config.model_type == "bert"


def as_large_as(teacher, artefact):
    """The heads a layer with which a pruned teacher comes nearest to the artefact in weights of its layers."""
    shape, config = peek(artefact)["shape"], teacher.config
    size = {"layers": config.num_hidden_layers, "hidden": config.hidden_size, "head_dim": shape.head_dim}
    heads = range(1, config.num_attention_heads + 1)
    ffn = {keep: config.intermediate_size * keep // len(heads) for keep in heads}
    wide = {keep: keep if prunes_heads(teacher) else len(heads) for keep in heads}
    return min(
        heads, key=lambda keep: abs(Shape.uniform(**size, heads=wide[keep], ffn=ffn[keep]).weights - shape.weights)
    )


def as_fast_as(teacher, artefact, batches):
    """The most heads in a layer with which a pruned teacher, quantized, is not slower than an artefact; at least one.

    Both are timed in turns, one thread, on the same inputs, by the processor's time, which others on the machine hardly
    change. Speed does not depend on weights, so nothing is trained.
    """
    reference = _call(artefact, batches)
    low, high = 1, teacher.config.num_attention_heads
    while low < high:
        middle = math.ceil((low + high) / 2)
        with tempfile.TemporaryDirectory() as folder:
            path = stock.onnx_int8(stock.onnx(pruned(teacher, middle), Path(folder)), Path(folder) / "int8.onnx")
            reference_timing, timing = alternate(
                [reference, _call(path, batches)], len(batches), 20, warmup=3, now=time.process_time
            )
        low, high = (middle, high) if timing.p50.value <= reference_timing.p50.value else (low, middle - 1)
    return low


def _call(path, batches):
    session = open_session(path)
    names = [entry.name for entry in session.get_inputs()]
    return lambda index: session.run(None, {name: batches[index][name] for name in names})
