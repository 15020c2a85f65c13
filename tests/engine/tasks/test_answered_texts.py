from __future__ import annotations

import json

import numpy as np
import pytest

from limbeck.core.logits import activate
from limbeck.core.sentence_embedding import SentenceEmbedding
from limbeck.core.shape import Shape
from limbeck.core.soft_label import has_probabilities
from limbeck.data import batching
from limbeck.data.answers import answers
from limbeck.data.baseline import baseline
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.planning import compress as compressing
from limbeck.engine.planning.compress import compress
from limbeck.engine.planning.compress_request import CompressRequest
from limbeck.engine.planning.planner import Planner
from limbeck.engine.predict import answer
from limbeck.engine.run import run
from limbeck.engine.store.store import Store
from limbeck.engine.tasks import answered_texts
from limbeck.engine.tasks.answered_texts import load_run_task
from limbeck.errors import InputError, RecipeError
from limbeck.model.checkpoints import open_model, peek_outputs, save_model
from limbeck.model.sentence_transformers import SETTINGS, write_modules
from limbeck.recipe.recipe import parse
from limbeck.report.model_card import figures
from limbeck.report.report import errors_line
from limbeck.report.table import rows
from limbeck.techniques.linearize import Linearize

KINDS = ("classification", "multilabel", "regression", "tokens", "embedding")


@pytest.fixture(scope="module")
def folders(make_model, tmp_path_factory):
    """A model of each kind, as a folder."""
    root = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        task = toy_task(kind, train=60, validation=10, test=10)
        tokenizer = toy_tokenizer(task)
        model = make_model(
            Shape.uniform(2, 32, 4, 48), labels=task.num_labels, kind=kind, vocab_size=len(tokenizer), max_positions=64
        )
        if task.label_names:
            model.config.id2label = dict(enumerate(task.label_names))
            model.config.label2id = {name: index for index, name in enumerate(task.label_names)}
        model.fresh_head = False
        save_model(model, tokenizer, root / kind)
    return root


@pytest.fixture(scope="module")
def texts():
    rows = toy_task("classification", train=300, validation=10, test=10).split("train").texts
    return list(dict.fromkeys(rows))


@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_loses_one_part_of_the_answers(folders, texts, kind, tmp_path, monkeypatch):
    """The answers are those of a run that was not interrupted, and a message comes before the first."""
    spec, source = {"texts": tuple(texts)}, str(folders / kind)
    monkeypatch.setattr("limbeck.data.answers.CHUNK", 8)
    expected = load_run_task(spec, source, None, Store(tmp_path / "whole"))
    predict, done, messages = batching.predict, [], []

    def interrupted(model, encoded, *more):
        if len(done) == 3:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append(len(encoded))
        return predict(model, encoded, *more)

    monkeypatch.setattr(batching, "predict", interrupted)
    store = Store(tmp_path / "parts")
    store.notify = messages.append
    with pytest.raises(KeyboardInterrupt):
        load_run_task(spec, source, None, store)
    assert "answers" in messages[0]
    answered = done[:-1]
    task = load_run_task(spec, source, None, store)
    assert task.fingerprint == expected.fingerprint
    asked = [name for name in task.splits if kind != "embedding" or name != "train"]
    assert sum(answered + done[4:]) == sum(len(task.split(name)) for name in asked)
    before = len(messages)
    load_run_task(spec, source, None, store)
    assert len(messages) == before


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_the_answers_of_the_model(folders, texts, kind, tmp_path):
    task = load_run_task({"texts": tuple(texts)}, str(folders / kind), None, Store(tmp_path))
    assert task.kind == kind
    model, tokenizer = open_model(folders / kind, task=task)
    logits = answers(model, tokenizer, task, "test")
    if kind == "tokens":
        expected = [tuple(np.asarray(row).argmax(-1)) for row in logits]
        assert list(task.split("test").labels) == expected
    else:
        assert task.score(np.stack(list(logits)), task.split("test").labels) == pytest.approx(1.0, abs=1e-4)
    again = load_run_task({"texts": tuple(texts)}, str(folders / kind), None, Store(tmp_path))
    assert again.fingerprint == task.fingerprint


def test_the_probabilities_of_classes_are_kept_for_held_out_texts(folders, texts, tmp_path):
    spec = {"texts": tuple(texts), "metric": "neg_kl_divergence"}
    task = load_run_task(spec, str(folders / "classification"), None, Store(tmp_path))
    model, tokenizer = open_model(folders / "classification", task=task)
    logits = answers(model, tokenizer, task, "test")
    probabilities = [label.probabilities for label in task.split("test").labels]
    np.testing.assert_allclose(probabilities, activate(logits, "softmax"), atol=1e-5)
    assert not has_probabilities(task.split("train").labels)
    assert task.score(logits, task.split("test").labels) == pytest.approx(0, abs=1e-6)
    constant = baseline(task).quality["test"]
    assert constant.low <= constant.value <= constant.high < 0


def test_a_teacher_answers_before_the_model(folders, texts, tmp_path):
    spec, model = {"texts": tuple(texts)}, str(folders / "classification")
    task = load_run_task(spec, model, str(folders / "multilabel"), Store(tmp_path))
    assert task.kind == "multilabel"


def test_a_model_without_a_head_is_refused(folders, texts, tmp_path, make_model):
    tokenizer = toy_tokenizer(toy_task())
    save_model(make_model(Shape.uniform(1, 16, 2, 16), vocab_size=len(tokenizer)), tokenizer, tmp_path / "new")
    model, tokenizer = open_model(tmp_path / "new")
    model.fresh_head = True
    save_model(model, tokenizer, tmp_path / "new")
    with pytest.raises(InputError, match="has no trained head"):
        load_run_task({"texts": tuple(texts)}, str(tmp_path / "new"), None, Store(tmp_path / "store"))


def test_vectors_that_are_not_supported_are_said(texts, tmp_path):
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=30, **sizes)).save_pretrained(tmp_path)
    write_modules(tmp_path, SentenceEmbedding(normalize=False), 16, {})
    (tmp_path / SETTINGS).write_text(json.dumps({"similarity_fn_name": "dot"}))
    with pytest.raises(InputError, match="similarity_fn_name 'dot' is not supported"):
        load_run_task({"texts": tuple(texts)}, str(tmp_path), None, Store(tmp_path / "store"))
    with pytest.raises(InputError, match="similarity_fn_name 'dot' is not supported"):
        answer(str(tmp_path), texts[:1])


def test_a_recipe_takes_texts(folders, texts, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    data = {
        "model": str(folders / "classification"),
        "task": {"texts": "texts.txt", "max_length": 32},
        "steps": ["export", "quantize", {"quality": {"split": "test"}}],
    }
    recipe = parse(data, base=tmp_path)
    result = run(recipe, store=tmp_path / "store", folder=tmp_path / "run")
    (record,) = (result.records[key] for key in result.front)
    assert record.fact("quality", "test").detail["metric"] == "agreement"
    assert record.fact("quality", "test").value > 0.8
    assert 0 <= record.fact("kl_divergence", "test").value < 0.1
    recipe = parse({**data, "steps": [*data["steps"], "best"]}, base=tmp_path)
    summary = run(recipe, store=tmp_path / "store", folder=tmp_path / "run").run_summary
    assert "KL divergence (nats) 0." in errors_line(summary)
    assert any(figure.label == "KL divergence (nats), test" for figure in figures(summary, rows(summary)[0], None))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("finetune", r"steps\[0\].finetune: needs labels, .*; use 'distill'"),
        ("meta_pseudo_labels", r"steps\[0\].meta_pseudo_labels: needs labels, .*; use 'distill'"),
        ({"weight_sharing": {"layers": [1, 2]}}, r"steps\[0\].weight_sharing: needs labels, .*; use 'supernet'"),
        ({"distill": {"task_weight": 0.5}}, r"distill.task_weight: needs labels, .*; use task_weight: 0"),
        ({"distill": {"preset": "patient"}}, r"distill.task_weight: needs labels"),
        ({"supernet": {"task_weight": 0.5}}, r"supernet.task_weight: needs labels"),
    ],
)
@pytest.mark.parametrize("kind", ["classification", "embedding"])
def test_steps_that_need_labels_are_refused_before_a_text_is_answered(
    folders, texts, kind, step, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(answered_texts, "_answered", lambda *_: pytest.fail("a text was answered"))
    model = str(folders / kind)
    data = {"model": model, "teacher": model, "task": {"texts": texts}, "steps": [step]}
    with pytest.raises(RecipeError, match=message):
        run(parse(data), store=tmp_path / "store", folder=tmp_path / "run")


def test_vectors_have_no_loss_of_their_own_to_train_other_attention_with(folders, texts, tmp_path):
    for kind in KINDS:
        task = load_run_task({"texts": tuple(texts)}, str(folders / kind), None, Store(tmp_path))
        assert bool(Linearize().task_problems(task)) == (kind == "embedding")
        planner = Planner(str(folders / kind), task, CompressRequest())
        assert planner.may_linearize == (kind != "embedding")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compress_needs_no_label(folders, texts, kind, tmp_path):
    compressed = compress(
        str(folders / kind),
        {"texts": texts, "max_length": 32},
        effort="one-shot",
        runtime="onnxruntime",
        folder=tmp_path / "run",
        store=tmp_path / "store",
        progress=False,
    )
    assert compressed.artefact is not None
    assert "answers of" in (compressed.artefact / "README.md").read_text() + compressed.report.read_text()


def test_compress_checks_its_default_folder_once_before_texts_are_answered(folders, texts, tmp_path, monkeypatch):
    seen, answered = [], answered_texts._answered

    class Planned(Exception):
        """The candidates are planned."""

    def planner(*given):
        raise Planned

    def answer_texts(*given):
        seen.append("answers")
        return answered(*given)

    monkeypatch.setattr(compressing, "default_folder", lambda name: seen.append("folder") or tmp_path / name)
    monkeypatch.setattr(compressing, "Planner", planner)
    monkeypatch.setattr(answered_texts, "_answered", answer_texts)
    with pytest.raises(Planned):
        compress(str(folders / "classification"), {"texts": tuple(texts)}, store=tmp_path / "store", progress=False)
    assert seen == ["folder", "folder", "answers"]  # where the run will be, and the check of what is there


def test_vectors_of_pairs_are_stored_text_by_text(folders, texts, tmp_path):
    (tmp_path / "pairs.txt").write_text("\n".join(map("\t".join, zip(texts[:150], texts[150:], strict=True))))
    spec = {"texts": str(tmp_path / "pairs.txt"), "text": "0", "pair": "1"}
    task = load_run_task(spec, str(folders / "embedding"), None, Store(tmp_path / "store"))
    labels = task.split("test").labels
    assert {len(label) for label in labels} == {32}
    fact = task.task_kind.assess(task.metric, (), np.array(labels), labels)
    assert fact.detail["stored"]["int8"]["bytes"] == 32
    assert fact.beside["neighbor_overlap"].value == 1


@pytest.mark.parametrize("form", ["search", "probe"])
def test_vectors_are_judged_by_a_search_or_a_probe(folders, texts, form, tmp_path):
    judged_folder = tmp_path / "judge"
    judged_folder.mkdir()
    if form == "search":
        records = [{"_id": str(number), "text": text} for number, text in enumerate(texts[:140])]
        for name, part in (("corpus", [*records[:30], *records[40:]]), ("queries", records[30:40])):
            (judged_folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
        (judged_folder / "qrels.tsv").write_text(
            "".join(f"{q}\t{q - 25}\t1\n{q}\t{q - 28}\t2\n" for q in range(30, 40))
        )
    else:
        for name, (first, last) in {"train": (0, 20), "validation": (20, 40), "test": (40, 60)}.items():
            rows = [json.dumps({"text": texts[n], "label": "ab"[n % 2]}) for n in range(first, last)]
            (judged_folder / f"{name}.jsonl").write_text("\n".join(rows))
    model = str(folders / "embedding")
    data = {
        "model": model,
        "teacher": model,
        "task": {"texts": tuple(texts), "judge": str(judged_folder), "max_length": 32},
        "allow_weak_teacher": True,
        "budget": {"max_drop": 50},
        "steps": [
            {"prune": {"keep": 0.7, "samples": 16}},
            {"distill": {"epochs": 1, "batch_size": 32}},
            "export",
            {"quantize": {"max_drop": 20}},
            "quality",
            {"quality": {"split": "test"}},
            {"latency": {"samples": 4, "rounds": 2}},
            "cheapest",
        ],
    }
    result = run(parse(data), store=tmp_path / "store", folder=tmp_path / "run")
    (record,) = (result.records[key] for key in result.front)
    fact = record.fact("quality", "test")
    assert fact.detail["metric"] == result.run_summary.known_task.metric
    assert fact.n == (5 if form == "search" else 20)
    candidate = result.open(record.key)
    logits = np.stack(list(answers(candidate.model, candidate.tokenizer, candidate.task, "test")))
    score = candidate.task.score(logits, candidate.task.split("test").labels)
    assert fact.value == pytest.approx(score, abs=0.2)  # INT8 answers one by one
    assert (record.fact("recall_at_100", "test") is not None) == (form == "search")


@pytest.fixture
def cross_encoder(make_model, tmp_path):
    """A cross-encoder as others save it: one output, without a mark of what it is for."""

    def save(**config):
        folder, tokenizer = tmp_path / "cross-encoder", toy_tokenizer(toy_task(train=60))
        model = make_model(
            Shape.uniform(2, 32, 4, 48), labels=1, kind="rerank", vocab_size=len(tokenizer), max_positions=64
        )
        model.fresh_head = False
        save_model(model, tokenizer, folder)
        written = json.loads((folder / "config.json").read_text())
        written = {key: value for key, value in written.items() if key not in ("reranker", "sentence_transformers")}
        (folder / "config.json").write_text(
            json.dumps({**written, "id2label": {"0": "LABEL_0"}, "label2id": {}, **config})
        )
        return str(folder)

    return save


def pairs_of(texts, documents, tmp_path):
    path = tmp_path / "pairs.tsv"
    first = [(query, 7 * number) for number, query in enumerate(texts[:12])]
    rows = [f"{query}\t{texts[(start + row) % len(texts)]}" for query, start in first for row in range(documents)]
    path.write_text("\n".join(rows) + "\n")
    return {"texts": str(path), "text": 0, "pair": 1}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {
            "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
            "problem_type": "regression",
        },
    ],
)
def test_any_cross_encoder_ranks_pairs(cross_encoder, texts, tmp_path, config):
    source, spec = cross_encoder(**config), pairs_of(texts, 12, tmp_path)
    assert peek_outputs(source).kind == "score"
    task = load_run_task(spec, source, None, Store(tmp_path / "store"))
    assert (task.kind, task.metric) == ("rerank", "overlap_at_10")
    model, tokenizer = open_model(source, task=task)
    logits = answers(model, tokenizer, task, "test")
    assert task.score(np.asarray(logits), task.split("test").labels) == 1


def test_compress_takes_a_cross_encoder_and_pairs(cross_encoder, texts, tmp_path):
    compressed = compress(
        cross_encoder(),
        {**pairs_of(texts, 12, tmp_path), "max_length": 32},
        max_drop=100,
        effort="one-shot",
        folder=tmp_path / "run",
        store=tmp_path / "store",
        allow_weak_teacher=True,
    )
    assert json.loads((compressed.artefact / "limbeck.json").read_text())["kind"] == "rerank"


def test_too_few_documents_are_told_before_a_pair_is_answered(cross_encoder, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(answered_texts, "_answered", lambda *_: pytest.fail("a text was answered"))
    with pytest.raises(InputError, match="split validation: no query has more than 10 documents"):
        load_run_task(pairs_of(texts, 10, tmp_path), cross_encoder(), None, Store(tmp_path / "store"))
