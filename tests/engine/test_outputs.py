"""What a run hands over: report, table, artefact."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from measuring_service import TOKEN, running_service

from limbeck.core.target import Budget
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.outputs import budget_violations, check_destinations, deliver, write_report
from limbeck.engine.planning.compress import Compressed
from limbeck.engine.predict import answer
from limbeck.engine.result import read_result
from limbeck.engine.run import run
from limbeck.engine.store.store import Store
from limbeck.errors import InputError, LimbeckError, RenamedWarning, StoreError
from limbeck.model.checkpoints import open_model, save_model
from limbeck.recipe.recipe import parse
from limbeck.report.table import rows
from limbeck.storage.digests import folder_digests

TASK = toy_task(train=24, validation=16, test=16)
STEPS = ["export", "size", "quality", {"quality": {"split": "test"}}, {"cheapest": {}}]


def toy_run(folder, make_model, **fields):
    """Carry out a recipe on a random model that is its own teacher."""
    tokenizer = toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, folder / "model")
    model = str(folder / "model")
    recipe = {"model": model, "teacher": model, "task": "movie-reviews", "name": "toy", "allow_weak_teacher": True}
    return run(parse({**recipe, **fields}), folder / "store", folder / "run", task=TASK)


@pytest.fixture(scope="module")
def result(tmp_path_factory, make_model):
    return toy_run(tmp_path_factory.mktemp("delivered"), make_model, steps=STEPS)


def test_vectors_are_delivered_at_the_models_own_length_for_sentence_transformers(tmp_path, make_model):
    task = toy_task("embedding", train=24, validation=16, test=16)
    for name, part in task.splits.items():
        lines = (
            json.dumps({"a": a, "b": b, "score": c})
            for a, b, c in zip(part.texts, part.pairs, part.labels, strict=True)
        )
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = toy_tokenizer(task)
    model = make_model(kind="embedding", vocab_size=len(tokenizer), max_positions=64)
    model.embedding = replace(model.embedding, max_length=24)
    save_model(model, tokenizer, tmp_path / "model")
    model = str(tmp_path / "model")
    recipe = {"model": model, "teacher": model, "steps": STEPS, "allow_weak_teacher": True}
    spec = {"path": str(tmp_path), "kind": "embedding", "text": "a", "pair": "b", "label": "score"}
    result = run(parse({**recipe, "task": spec}), tmp_path / "store", tmp_path / "run")
    artefact = deliver(result, tmp_path / "art")["artefact"]
    metadata = json.loads((artefact / "limbeck.json").read_text())
    assert (result.task.max_length, metadata["encoding"]["max_length"], metadata["max_length"]) == (24, 24, 24)
    assert json.loads((artefact / "sentence_bert_config.json").read_text())["max_seq_length"] == 24
    text = (artefact / "README.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "sentence-transformers"
    for words in (
        "texts of up to 24 tokens",
        "`sentence_transformers.SentenceTransformer(folder, trust_remote_code=True)` opens",
    ):
        assert words in text
    with pytest.raises(LimbeckError, match=r"max_length 25, but '.*' takes at most 24 tokens"):
        run(parse({**recipe, "task": {**spec, "max_length": 25}}), tmp_path / "store", tmp_path / "run")


def test_the_summary_of_a_run_is_computed_once(result):
    summary = result.run_summary
    assert (summary.teacher, list(summary.seeds), summary.chosen) == (result.teacher, [0], result.chosen)
    assert result.run_summary is summary
    assert rows(summary) is rows(summary)


def test_report_table_and_artefact(result, tmp_path):
    written = deliver(result, tmp_path / "art")
    assert set(written) == {"artefact", "report", "front"}
    assert (written["artefact"] / "onnx" / "model.onnx").is_file()
    assert (written["artefact"] / "report.html").read_text() == written["report"].read_text()
    assert written["front"].read_text().count("\n") == 3  # the heading, the teacher, the exported model
    assert not list(result.folder.glob(".*"))


def test_nothing_delivered_has_a_path_of_this_machine(result, tmp_path):
    written = deliver(result, tmp_path / "art")
    folders = [str(result.folder.parent), str(tmp_path), str(result.store.root), str(Path.home())]
    files = [written["report"], written["front"], *written["artefact"].rglob("*")]
    for path in filter(Path.is_file, files):
        content = path.read_bytes()
        assert not [folder for folder in folders if folder.encode() in content], path
    description = json.loads((written["artefact"] / "limbeck.json").read_text())
    assert "model: ./model" in description["recipe"]
    assert description["steps"][0]["parameters"]["source"] == "./model"
    assert "base_model" not in (written["artefact"] / "README.md").read_text()


def test_outputs_lie_outside_the_models(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    link = tmp_path / "link"
    link.symlink_to(model)
    for inside in (model, model / "out", model / "deep" / "er", link / "out", tmp_path / "x" / ".." / "model"):
        for inputs in ((model,), (str(model), None), ("owner/name", link)):
            with pytest.raises(InputError, match="which is read; name a folder outside"):
                check_destinations(inside, None, inputs)
            with pytest.raises(InputError, match=r"--folder .* which is read"):
                check_destinations(None, inside, inputs)
    check_destinations(tmp_path / "model-small", tmp_path / "run", (model, None, "owner/name"))


def test_a_run_refuses_a_folder_in_its_model(result, tmp_path):
    model = Path(result.recipe.model)
    content = sorted(model.rglob("*"))
    with pytest.raises(InputError, match=r"--folder .* which is read"):
        run(result.recipe, tmp_path / "store", model / "runs" / "toy", task=TASK)
    assert sorted(model.rglob("*")) == content


def test_the_report_needs_no_store(result, tmp_path):
    expected = deliver(result, tmp_path / "art")["report"].read_text()
    result = replace(result, store=Store(tmp_path / "nowhere"), builder=None)
    written = write_report(result)
    assert set(written) == {"report", "front"}
    assert written["report"].read_text() == expected
    assert "InferenceSession" in expected  # how the artefact is served
    assert not (tmp_path / "nowhere").exists()


def test_what_the_store_has_lost_is_made_again_to_be_delivered(result, tmp_path):
    """Also where the run is over and only its ledger is left."""
    expected = deliver(result, tmp_path / "expected")["artefact"]
    for lost in (
        replace(result, store=Store(tmp_path / "store"), builder=None),
        replace(read_result(result.folder), task=TASK),
    ):
        shutil.rmtree(lost.store.objects, ignore_errors=True)
        artefact = deliver(lost, tmp_path / "art")["artefact"]
        assert folder_digests(artefact / "onnx") == folder_digests(expected / "onnx")
        shutil.rmtree(artefact)


def test_what_changes_while_it_is_copied_is_made_again(result, tmp_path, monkeypatch):
    expected = folder_digests(deliver(result, tmp_path / "art")["artefact"] / "onnx")
    stored, chosen = result.store.objects / result.chosen[0], result.chosen[0]
    blob = (stored / "onnx" / "model.onnx").read_bytes()
    checked = result.stored

    def stored_then_damaged(key):
        folder, digests = checked(key)
        if not list((result.store.root / "quarantine").glob("*")):
            (folder / "onnx" / "model.onnx").write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
        return folder, digests

    monkeypatch.setitem(result.__dict__, "stored", stored_then_damaged)
    assert folder_digests(deliver(result, tmp_path / "art")["artefact"] / "onnx") == expected
    (aside,) = (result.store.root / "quarantine").iterdir()
    assert aside.name.startswith(chosen)


def test_a_model_that_has_changed_is_not_made_again_from_something_else(result, tmp_path, make_model):
    folder = tmp_path / "model"
    shutil.copytree(result.recipe.model, folder)
    records = {
        key: replace(record, parameters={"source": str(folder)} if record.parent is None else record.parameters)
        for key, record in result.records.items()
    }
    save_model(make_model(labels=3, vocab_size=len(toy_tokenizer(TASK)), seed=7), toy_tokenizer(TASK), folder)
    lost = replace(result, records=records, store=Store(tmp_path / "store"), builder=None)
    with pytest.raises(StoreError, match="from a model that has changed; run the recipe again"):
        deliver(lost, tmp_path / "art")


def test_budget_violations_say_what_the_chosen_one_breaks(result, monkeypatch):
    nothing_learned = "no better than a constant answer (always 'happy')"
    assert budget_violations(result) == (nothing_learned,)  # the model is random
    size, learned = budget_violations(replace(result, recipe=replace(result.recipe, budget=Budget(size_mb=0.001))))
    assert "MB > 0.001 MB" in size
    assert learned == nothing_learned


def test_the_report_shows_how_texts_were_made(tmp_path, make_model):
    """Two branches from one augmentation and one from another: two histories, each once, from the store."""
    tokenizer = toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    train = [{"finetune": {"num_train_epochs": 1}}, {"augment": {"n_iter": 2}}, {"distill": {"num_train_epochs": 0.5}}]
    fork = {"fork": [["quality"], [{"augment": {"n_iter": 3, "guard": "relabel"}}, "quality"]]}
    recipe = parse({"model": str(tmp_path / "model"), "task": "movie-reviews", "name": "toy", "steps": [*train, fork]})
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=TASK)
    assert result.ok
    assert result.task.history == ()
    histories = result.run_summary.histories
    assert [entry["summary"].split(",")[1] for entry in histories] == [" 2 samples per text", " 3 samples per text"]
    assert histories[1]["counts"]["original texts"] == len(TASK.split("train"))
    text = write_report(result)["report"].read_text()
    assert text.count("Augmented texts</h2>") == 1
    assert "Relabelled by the guard" in text


def test_a_place_that_holds_something_else_is_refused_before_the_work(tmp_path):
    check_destinations(None)
    check_destinations(tmp_path / "new")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"neither empty .*thesis\.tex"):
        check_destinations(tmp_path)


def test_what_is_finished_is_kept_when_the_disk_is_full(result, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(LimbeckError, match=rf"disk is full.*limbeck save {result.folder} {result.chosen[0]} --to DIR"):
        deliver(result, tmp_path / "art")
    assert not list(tmp_path.iterdir())


def test_the_outcome_of_compress_is_shown_short_or_as_the_table(result, tmp_path):
    compressed = Compressed(result, deliver(result, tmp_path / "art"), ())
    assert compressed.artefact == tmp_path / "art"
    assert compressed.report == result.folder / "report.html"
    assert len(repr(compressed)) < 300
    assert "meets the budget" in repr(compressed)
    assert str(compressed) == compressed.summary()
    assert "★" in str(compressed)
    assert "<table>" in compressed._repr_html_()
    assert list(compressed.front["chosen"]) == [row.chosen for row in rows(result.run_summary)]
    slow = Compressed(result, compressed.written, ("too slow",))
    assert "does not meet the budget: too slow" in repr(slow)
    with pytest.warns(RenamedWarning, match="budget_violations"):
        assert slow.unmet == ("too slow",)


@pytest.mark.slow
def test_a_reranker_is_served_in_the_sub_batches_it_was_judged_in(tmp_path, make_model):
    """Its folder opens as a CrossEncoder, and predict, evaluation and that one give the same scores."""
    task = toy_task("rerank", train=48, validation=24, test=24)
    tokenizer = toy_tokenizer(task)
    save_model(make_model(labels=1, kind="rerank", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    steps = [
        {"finetune": {"rank_loss": "listwise", "num_train_epochs": 2}},
        {"prune": {"speedup": 1.5}},
        {"export": {}},
        {"fork": [[], [{"quantize": {}}]]},
        {"size": {}},
        {"quality": {}},
        {"latency": {"rounds": 2}},
        {"cheapest": {}},
    ]
    recipe = {"model": str(tmp_path / "model"), "task": "ranking", "steps": steps, "target": {"candidates": 6}}
    result = run(parse({**recipe, "allow_weak_teacher": True}), tmp_path / "store", tmp_path / "run", task=task)
    assert not result.failed
    written = deliver(result, tmp_path / "art")
    record = result.records[result.chosen[0]]
    request = json.loads((written["artefact"] / "limbeck.json").read_text())["request"]
    assert request["candidates"] == 6
    card = (written["artefact"] / "README.md").read_text()
    assert "Latency is per request on: onnxruntime, 1 thread, requests of 6 documents" in card
    assert "over one padded batch" in card
    assert "| MRR@10, validation |" in card
    assert request["batch"] == record.fact("latency_p50").detail["sub_batch"]
    if (int8 := record.fact("quality", "validation").detail.get("batch")) is not None:
        assert int8 == request["batch"]
    rows = task.split("test")
    answers = [row["answer"] for row in answer(written["artefact"], rows.texts, rows.pairs)]
    assert len(answers) == len(rows)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = sentence_transformers.CrossEncoder(str(written["artefact"]), trust_remote_code=True, device="cpu")
    float_scores = encoder.predict(list(zip(rows.texts, rows.pairs, strict=True)))
    opened, opened_tokenizer = open_model(written["artefact"], task=task, runtime="torch")
    expected = predict(opened, encode(task, "test", opened_tokenizer))[:, 0]
    np.testing.assert_allclose(float_scores, expected, atol=1e-4)


@pytest.fixture(scope="module")
def several(tmp_path_factory, make_model):
    """A run on two targets, one of which has room for nothing."""
    targets = {"server": {"threads": 2}, "board": {"budget": {"size_mb": 0.001}}}
    steps = ["export", {"fork": [[], ["quantize"]]}, "size", "quality", {"quality": {"split": "test"}}, "best"]
    return toy_run(tmp_path_factory.mktemp("several"), make_model, targets=targets, steps=steps)


def test_each_target_has_its_artefact_and_report(several, tmp_path):
    written = deliver(several, tmp_path / "art")
    assert [written[f"artefact {name}"] for name in several.targets] == [tmp_path / "art" / n for n in several.targets]
    for name, result in several.targets.items():
        artefact = tmp_path / "art" / name
        description = json.loads((artefact / "limbeck.json").read_text())
        assert (description["key"], description["target_name"]) == (result.chosen[0], name)
        assert description["target"] == str(several.recipe.targets[name])
        assert "targets:" in description["recipe"]
        card = (artefact / "README.md").read_text()
        assert "## On each target" in card
        assert "| server | onnxruntime, 2 threads" in card
        rows_there = TASK.split("test")
        expected = evaluate(artefact, TASK, "test")
        fact = result.records[result.chosen[0]].fact("quality", "test")
        assert expected == pytest.approx(fact.value)
        assert len(answer(artefact, list(rows_there.texts))) == len(rows_there)
        assert (artefact / "report.html").is_file()
        assert f"report-{name}.html" in (several.folder / "report.html").read_text()
        assert (several.folder / f"report-{name}.html").is_file()
    again = write_report(read_result(several.folder).with_task(TASK))
    assert sorted(again) == sorted(set(written) - {"artefact server", "artefact board"})
    compressed = Compressed(several, written, budget_violations(several))
    assert set(compressed.front["target"]) == {"server", "board"}
    assert compressed._repr_html_().count("<table>") == 2
    assert str(compressed).count("★ chosen") == 2


def evaluate(folder, task, split):
    """Accuracy of an artefact, answered text by text."""
    rows_there = task.split(split)
    answers = [row["answer"] for row in answer(folder, list(rows_there.texts))]
    labels = [task.label_names[label] for label in rows_there.labels]
    return sum(map(str.__eq__, answers, labels)) / len(labels)


def test_violations_say_of_which_target(several):
    alone = {name: budget_violations(result) for name, result in several.targets.items()}
    assert budget_violations(several) == tuple(f"{name}: {text}" for name, texts in alone.items() for text in texts)
    too_large = {name: [text for text in texts if text.startswith("size")] for name, texts in alone.items()}
    assert {name: len(texts) for name, texts in too_large.items()} == {"server": 0, "board": 1}


def test_an_artefact_for_one_target_is_not_replaced_by_several(result, several, tmp_path):
    deliver(result, tmp_path / "art")
    with pytest.raises(
        InputError, match="is an artefact for one target; name another folder for those of server, board"
    ):
        check_destinations(tmp_path / "art", targets=several.recipe.settings)
    check_destinations(tmp_path / "others", targets=several.recipe.settings)
    (tmp_path / "others" / "board").mkdir(parents=True)
    (tmp_path / "others" / "board" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"others/board is neither empty nor an earlier artefact"):
        check_destinations(tmp_path / "others", targets=several.recipe.settings)


@pytest.mark.slow
def test_a_file_is_for_the_targets_whose_runtime_reads_it(tmp_path, make_model):
    """Fused operators are ONNX Runtime's; OpenVINO gets its own export, and each target chooses what it can run."""
    pytest.importorskip("openvino")
    tokenizer = toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    model = str(tmp_path / "model")
    branches = [["export", "quantize"], [{"export": {"fused": False}}, {"quantize": {"mode": "static"}}]]
    probes = ["size", "quality", {"latency": {"samples": 8, "rounds": 3}}, "cheapest"]
    recipe = {"model": model, "teacher": model, "task": "movie-reviews", "steps": [{"fork": branches}, *probes]}
    targets = {"server": {"runtime": "openvino"}, "laptop": {}}
    recipe = parse({**recipe, "targets": targets, "allow_weak_teacher": True})
    result = run(recipe, tmp_path / "store", tmp_path / "run", task=TASK)
    assert result.ok, result.failed
    exported = {
        name: sum("onnx" in each.records[key].traits for key in each.measured) for name, each in result.targets.items()
    }
    assert exported == {"server": 1, "laptop": 2}
    laptop, single = result.targets["laptop"], run(recipe.at("laptop"), tmp_path / "store", tmp_path / "one", task=TASK)
    assert (single.chosen, single.front) == (laptop.chosen, laptop.front)
    assert single.records == {key: laptop.records[key] for key in single.records}
    written = deliver(result, tmp_path / "art")
    runtimes = {
        name: json.loads((written[f"artefact {name}"] / "limbeck.json").read_text())["runtime"] for name in targets
    }
    assert runtimes == {"server": "openvino", "laptop": "onnxruntime"}


@pytest.mark.slow
def test_one_target_is_here_and_one_is_a_measuring_service(tmp_path, make_model, monkeypatch):
    """What a run on both says of each is what a run on it alone says, in the same store."""
    tokenizer = toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    model = str(tmp_path / "model")
    probes = ["size", "quality", {"latency": {"samples": 8, "rounds": 3}}, "best"]
    recipe = {"model": model, "teacher": model, "task": "movie-reviews", "allow_weak_teacher": True}
    recipe |= {"steps": ["export", {"fork": [[], ["quantize"]]}, *probes]}
    monkeypatch.setenv("LIMBECK_TOKEN", TOKEN)
    (tmp_path / "board").mkdir()
    with running_service(tmp_path / "board") as url:
        several = parse({**recipe, "targets": {"here": {}, "board": {"url": url, "threads": 2}}})
        result = run(several, tmp_path / "store", tmp_path / "run", task=TASK)
        assert result.ok, result.failed
        for name, each in result.targets.items():
            single = run(several.at(name), tmp_path / "store", tmp_path / f"run-{name}", task=TASK)
            assert (single.chosen, single.front, single.reference) == (each.chosen, each.front, each.reference)
            assert single.records == {key: each.records[key] for key in single.records}
            fact = each.records[each.chosen[0]].fact("latency_p50")
            assert fact.target == str(several.targets[name])
            assert (", at 127.0.0.1" in fact.target) == (name == "board")
