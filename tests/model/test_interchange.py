"""Translated folders: what other tools read in them, and what they refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from limbeck.core.shape import Shape
from limbeck.model import families
from limbeck.model.checkpoints import open_model, peek, save_model
from limbeck.model.configuration import STANDARD_KEYS
from limbeck.model.encoder import (
    LimbeckConfig,
    LimbeckForSequenceClassification,
    LimbeckForTokenClassification,
)
from limbeck.model.family_table import FAMILIES
from limbeck.model.interchange import CLASSES, Rows, our_tensors, rewrite_weights, translate_folder
from limbeck.model.layout import tensor_names
from limbeck.model.onnx import quantization as quantized
from limbeck.model.onnx.onnx_model import FLOAT_FILE, INT8_FILE, OnnxModel, read_parts, to_onnx, write

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "very", "dull"]
UNIFORM = Shape.uniform(layers=2, hidden=16, heads=2, ffn=24)
RAGGED = UNIFORM.with_layer(0, heads=1).with_layer(1, heads=0, ffn=7)
STYLES = {
    "bert": {},
    "roberta": {"position_offset": 0, "token_types": 1},
    "xlm-roberta": {"position_offset": 0, "token_types": 1},
    "camembert": {"position_offset": 0, "token_types": 1},
    "data2vec-text": {"position_offset": 0, "token_types": 1},
    "ernie": {},
    "electra": {"embedding_size": 8, "pooler": "gelu"},
    "albert": {"embedding_size": 8, "activation": "gelu_new"},
    "rembert": {"embedding_size": 8},
    "roformer": {"absolute_positions": False, "rotary_theta": (10_000.0,), "pooler": "gelu"},
    "megatron-bert": {"norm_first": True, "embedding_norm": False},
    "roberta-prelayernorm": {"position_offset": 1, "pad_token_id": 1, "norm_first": True},
    "xlm-roberta-xl": {
        "position_offset": 1,
        "pad_token_id": 1,
        "token_types": 1,
        "norm_first": True,
        "embedding_norm": False,
    },
    "distilbert": {"token_types": 0, "pooler": "relu"},
    "modernbert": {
        **FAMILIES["modernbert"].style,
        "token_types": 0,
        "rotary_theta": [160_000.0] * 2,
        **dict.fromkeys(("norm_bias", "attention_bias", "ffn_bias", "pooler_bias"), False),
        "pooler": "gelu",
    },
    "mpnet": {"token_types": 0, "position_offset": 1, "pad_token_id": 1, "relative_buckets": 32, "relative_heads": 2},
    "deberta-v2": {
        "token_types": 0, "pooler": "gelu", "pos_att_type": ["c2p", "p2c"], "share_att_key": True,
        "position_buckets": 8, "max_relative_positions": 16, "relative_norm": True, "absolute_positions": False,
        "masks_queries": True,
    },
}  # fmt: skip
KINDS = {"text": LimbeckForSequenceClassification, "tokens": LimbeckForTokenClassification}
EXTRA = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}, "their_key": [1, 2]}
IDS = torch.tensor([[2, 4, 8, 5, 7, 3]])


def tokenizer():
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def translated(folder: Path, family="bert", kind="text", shape=UNIFORM, *, int8=False):
    """A model of random weights, saved as the store does and translated as an artefact is."""
    torch.manual_seed(0)
    labels = ("no", "yes", "maybe")
    config = LimbeckConfig(
        shape.hidden,
        shape.head_dim,
        *([getattr(layer, name) for layer in shape.layers] for name in ("heads", "ffn", "attention")),
        vocab_size=len(WORDS),
        max_positions=16,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        problem_type="single_label_classification",
        family=family,
        **STYLES[family],
        **EXTRA,
    )
    model = KINDS[kind](config)
    for parameter in model.parameters():
        parameter.data.normal_(0.1, 0.4)
    model.encoder.shape = shape
    save_model(model.eval(), tokenizer(), folder)
    if int8:
        parts = read_parts(to_onnx(model, folder / FLOAT_FILE))
        (folder / FLOAT_FILE).unlink()
        write(
            quantized.quantize(*parts, quantized.Int8(frozenset(quantized.quantizable_modules(*parts)))),
            folder / INT8_FILE,
        )
        settings = json.loads((folder / "config.json").read_text())
        save_model(OnnxModel(folder, INT8_FILE, settings), tokenizer(), folder)
    translate_folder(folder)
    return model


def served_by_text_embeddings_inference(folder: Path) -> list[str]:
    """What its loader would miss, by its documentation and sources (router, backends/ort)."""
    config = json.loads((folder / "config.json").read_text())
    deep = ("max_position_embeddings", "vocab_size", "pad_token_id", "id2label", "label2id", "architectures")
    names = {"distilbert": ("dim", "n_layers", "n_heads", "hidden_dim")}.get(
        config["model_type"], ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    )
    problems = [name for name in (*deep, *names) if name not in config]
    problems += [name for name in names if not (isinstance(config.get(name), int) and config[name] > 0)]
    problems += ["tokenizer.json"] if not (folder / "tokenizer.json").is_file() else []
    if not any((folder / name).is_file() for name in ("model.onnx", "onnx/model.onnx")):
        problems.append("onnx/model.onnx")
    if not config["architectures"][0].endswith(("ForSequenceClassification", "ForTokenClassification")):
        problems.append("architectures")
    return problems


def python(code: str, *arguments: object) -> str:
    """Run code without limbeck and without input."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['limbeck'] = None\n" + textwrap.dedent(code),
         *map(str, arguments)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_names_of_our_keys_and_of_the_families_are_complete():
    assert CLASSES.keys() == FAMILIES.keys()
    standard = {key for row in FAMILIES.values() for key in row.config_keys}
    assert {*standard, *STANDARD_KEYS} == standard
    assert standard - STANDARD_KEYS <= {*families.OURS, "activation", "dropout"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if not row.rearranged])
def test_a_uniform_shape_is_a_plain_checkpoint_of_its_family(family, kind, tmp_path):
    model = translated(tmp_path, family, kind)
    auto = {"text": "AutoModelForSequenceClassification", "tokens": "AutoModelForTokenClassification"}[kind]
    plain, report = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert type(plain).__name__ == json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(IDS).logits, model(IDS).logits, atol=1e-5, rtol=1e-5)
    assert not list(tmp_path.glob("*.py"))
    assert plain.config.their_key == EXTRA["their_key"]
    assert plain.config.id2label == {0: "no", 1: "yes", 2: "maybe"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_ragged_shape_is_refused_by_the_familys_own_class(family, kind, tmp_path):
    # to_transformers writes those of other families whose layout is more than names
    translated(tmp_path, family, kind, UNIFORM if FAMILIES[family].rearranged else RAGGED)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == family
    for auto in ("AutoModel", "AutoModelForSequenceClassification", "AutoModelForTokenClassification"):
        with pytest.raises(RuntimeError, match="mismatched"):
            getattr(transformers, auto).from_pretrained(tmp_path)


def test_layers_of_usual_width_with_another_attention_are_refused_too(tmp_path):
    translated(tmp_path, shape=UNIFORM.with_layer(1, attention="kernel"))
    with pytest.raises(RuntimeError, match="mismatched"):
        transformers.AutoModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("shape", [UNIFORM, RAGGED], ids=["uniform", "ragged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_limbeck_opens_saves_and_translates_it_again(family, shape, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    model = translated(first, family, shape=shape)
    opened, words = open_model(first)
    np.testing.assert_allclose(opened.predict({"input_ids": IDS}), model.predict({"input_ids": IDS}), atol=1e-6)
    save_model(opened, words, second)
    settings = json.loads((second / "config.json").read_text())
    assert settings["model_type"] == "limbeck"
    assert {key: settings[key] for key in EXTRA} == EXTRA
    assert not STANDARD_KEYS & settings.keys() - families.OURS
    translate_folder(second)
    config = (first / "config.json").read_text()
    assert json.loads((second / "config.json").read_text()) == json.loads(config)
    assert tensor_names(second / "model.safetensors") == tensor_names(first / "model.safetensors")


def test_labels_edited_in_the_translated_configuration_count(tmp_path):
    translated(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "nein", "1": "ja", "2": "vielleicht"}
    config["label2id"] = {"nein": 0, "ja": 1, "vielleicht": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert peek(tmp_path)["labels"] == ("nein", "ja", "vielleicht")


@pytest.mark.parametrize("shape", [UNIFORM, RAGGED], ids=["uniform", "ragged"])
def test_an_int8_folder_has_both_names_and_restores_our_weights_when_saved(shape, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    translated(first, "roberta", shape=shape, int8=True)
    assert (first / INT8_FILE).read_bytes() == (first / FLOAT_FILE).read_bytes()
    assert not served_by_text_embeddings_inference(first)
    opened, words = open_model(first)
    assert opened.int8
    assert opened.size_bytes == (first / INT8_FILE).stat().st_size
    save_model(opened, words, second)
    names = tensor_names(second / "model.safetensors")
    assert our_tensors(names, opened.config) == {name: Rows(name) for name in names}
    again, _ = open_model(second, runtime="torch")
    torch_model, _ = open_model(first, runtime="torch")
    np.testing.assert_array_equal(again.predict({"input_ids": IDS}), torch_model.predict({"input_ids": IDS}))


def test_weights_are_written_in_one_order_empty_ones_too(tmp_path):
    """A layer without heads has several tensors at one place of the file."""
    names = ["query.weight", "key.weight", "value.weight", "key.bias", "up.weight"]
    weights = {name: torch.zeros(0 if name != "up.weight" else 3, 4) for name in names}
    save_file(weights, tmp_path / "source")
    written = set()
    for number, order in enumerate((names, names[::-1], sorted(names))):
        target = tmp_path / str(number)
        rewrite_weights(tmp_path / "source", target, {f"our.{name}": [Rows(name)] for name in order})
        written.add(target.read_bytes())
        assert {name: tensor.shape for name, tensor in load_file(target).items()} == {
            f"our.{name}": tensor.shape for name, tensor in weights.items()
        }
    assert len(written) == 1


@pytest.mark.slow
def test_nothing_asks_or_runs_code_and_trusted_code_opens_any_shape(tmp_path):
    model = translated(tmp_path, "distilbert", shape=RAGGED, int8=True)
    code = """
        import sys, torch, transformers
        words = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
        config = transformers.AutoConfig.from_pretrained(sys.argv[1])
        assert not any(name.startswith("transformers_modules.") for name in sys.modules)
        assert type(config).__name__ == "DistilBertConfig" and words.model_max_length == 16
        model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
        print(model.eval()(torch.tensor([[2, 4, 8, 5, 7, 3]])).logits.tolist())
    """
    with torch.no_grad():
        expected = model(IDS).logits
    torch.testing.assert_close(torch.tensor(json.loads(python(code, tmp_path))), expected)


def test_a_pipeline_cuts_long_texts_to_the_models_length(tmp_path):
    translated(tmp_path)
    answer = transformers.pipeline("text-classification", str(tmp_path))("very good film " * 50, truncation=True)
    assert answer[0]["label"] in ("no", "yes", "maybe")


NODE = shutil.which("node")
NODE_MODULES = os.environ.get("LIMBECK_NODE_MODULES", "")


@pytest.mark.slow
@pytest.mark.skipif(
    not NODE or not (Path(NODE_MODULES) / "@huggingface" / "transformers").is_dir(),
    reason="needs node, and LIMBECK_NODE_MODULES with @huggingface/transformers",
)
@pytest.mark.parametrize("shape", [UNIFORM, RAGGED], ids=["uniform", "ragged"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_js_answers_as_onnxruntime_does(kind, shape, tmp_path):
    translated(tmp_path / "model", kind=kind, shape=shape, int8=True)
    model, words = open_model(tmp_path / "model")
    (tmp_path / "node_modules").symlink_to(Path(NODE_MODULES).resolve())
    auto = {"text": "AutoModelForSequenceClassification", "tokens": "AutoModelForTokenClassification"}[kind]
    (tmp_path / "run.mjs").write_text(
        textwrap.dedent(
            f"""
            import {{ env, AutoTokenizer, {auto} }} from '@huggingface/transformers';
            env.localModelPath = {json.dumps(str(tmp_path))};
            env.allowRemoteModels = false;
            const words = await AutoTokenizer.from_pretrained('model');
            for (const dtype of ['q8', 'fp32']) {{
                const model = await {auto}.from_pretrained('model', {{ dtype }});
                const {{ logits }} = await model(await words('a very good film'));
                console.log(JSON.stringify([logits.tolist(), model.config.id2label]));
            }}
            """
        )
    )
    ran = subprocess.run([NODE, "run.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    expected = model.predict(words("a very good film", return_tensors="np"))
    for line in ran.stdout.strip().splitlines():
        logits, labels = json.loads(line)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        assert labels == {"0": "no", "1": "yes", "2": "maybe"}
