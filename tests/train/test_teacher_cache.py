from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.step import RunContext
from limbeck.data import batching
from limbeck.data.batching import collate, encode
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.store.store import Store
from limbeck.errors import InputError
from limbeck.train import teacher_cache
from limbeck.train.teacher_cache import CachedTeacher, cached_layers, cached_logits

TAPS = {"hidden": (0, 2), "attention": (1,), "query": (0,), "key": (0,), "value": (1,)}


def toy_teacher(build, kind="classification"):
    task = toy_task(kind, train=40)
    tokenizer = toy_tokenizer(task)
    model = build(labels=task.num_labels, kind=task.kind, vocab_size=len(tokenizer), seed=1)
    return Candidate(model, tokenizer, task)


@pytest.mark.parametrize("of_the_pass", [True, False])
@pytest.mark.parametrize("kind", ["classification", "pairs", "tokens", "regression"])
def test_what_is_kept_is_what_the_teacher_puts_out(make_model, tmp_path, kind, of_the_pass):
    """Every tap of every batch, wherever the text is real; padding is 0."""
    teacher, keep = toy_teacher(make_model, kind), RunContext().keep
    layers, logits = cached_layers(teacher, "teacher", teacher.task, TAPS, keep, tmp_path / "scratch")
    cached = CachedTeacher(
        cached_logits(teacher, "teacher", teacher.task, keep, logits if of_the_pass else None), layers
    )
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    for rows in ([3, 0, 17], [39], [5, 6, 7, 8]):
        batch = collate(encoded, rows)
        with torch.no_grad():
            logits, tapped = teacher.model.run(batch, taps=sorted(TAPS))
        outputs = cached(batch, sorted(TAPS))
        real = batch["attention_mask"]
        if kind == "tokens":
            logits = logits * real[..., None]
        torch.testing.assert_close(outputs.logits, logits, rtol=1e-4, atol=1e-5)
        for tap, wanted in TAPS.items():
            for layer in wanted:
                expected = tapped[tap][layer]
                if tap == "attention":
                    mask = (real[:, None, :, None] * real[:, None, None, :]).bool().expand_as(expected)
                else:
                    mask = (real[..., None] if tap == "hidden" else real[:, None, :, None]).bool().expand_as(expected)
                expected = expected.masked_fill(~mask, 0.0)
                torch.testing.assert_close(outputs.taps[tap][layer], expected, rtol=2e-3, atol=2e-3)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_an_interrupted_pass_repeats_one_part_at_most(make_model, tmp_path, monkeypatch, kind):
    teacher = toy_teacher(make_model, kind)
    encoded = encode(teacher.task, "train", teacher.tokenizer)
    rows = torch.arange(40)
    whole = cached_logits(teacher, "teacher", teacher.task, RunContext().keep)(rows)
    monkeypatch.setattr(teacher_cache, "BATCH", 4)
    monkeypatch.setattr(teacher_cache, "PART", 3)
    predicted, limit = [], 17

    def predict_batches(model, split, batches):
        for index, row in batching.predict_batches(model, split, batches):
            if len(predicted) == limit:
                raise KeyboardInterrupt
            predicted.append(index)
            yield index, row

    monkeypatch.setattr(teacher_cache, "predict_batches", predict_batches)
    keep = Store(tmp_path / "store").facts.keep
    with pytest.raises(KeyboardInterrupt):
        cached_logits(teacher, "teacher", teacher.task, keep)
    limit = 100
    resumed = cached_logits(teacher, "teacher", teacher.task, keep)(rows)
    assert len(predicted) == 40 + 17 - 12
    split = teacher.task.split("train")
    more = replace(
        teacher.task,
        splits={**teacher.task.splits, "train": split.take([*range(40), 3, 7])},
        history=({"before": 40, "after": 42},),
    )
    added = cached_logits(teacher, "teacher", more, keep)(torch.tensor([*range(40), 40, 41]))
    assert len(predicted) == 40 + 17 - 12 + 2, "the originals are not read again"
    torch.testing.assert_close(added[[40, 41]], whole[[3, 7]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(resumed, whole, rtol=1e-5, atol=1e-5)
    assert resumed.shape[:2] == (40, max(encoded.lengths) if kind == "tokens" else teacher.task.num_labels)


def test_a_teacher_of_another_vocabulary_reads_its_own_mask(make_model):
    """As if its mask had been written in place of the student's."""
    task = toy_task(train=8)
    tokenizer = toy_tokenizer(task)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    teacher = Candidate(make_model(labels=3, vocab_size=len(tokenizer), seed=1), tokenizer, task)
    answers = []
    for mask, history in (("<mask>", ()), ("[MASK]", ({"mask_token": "[MASK]"},)), ("[MASK]", ())):
        train = replace(task.split("train"), texts=(f"{mask} film", *task.split("train").texts[1:]))
        masked = replace(task, splits={"train": train}, history=history)
        answers.append(cached_logits(teacher, "teacher", masked, RunContext().keep)(torch.arange(8)))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_only_missing_layers_are_written(make_model, tmp_path):
    teacher, built = toy_teacher(make_model), []

    def keep(name, build):
        path = tmp_path / name
        if not path.exists():
            built.append(name)
            path.mkdir()
            build(path)
        return path

    cached_layers(teacher, "teacher", teacher.task, {"hidden": (0, 1)}, keep)
    cached_layers(teacher, "teacher", teacher.task, {"hidden": (0, 2)}, keep)
    assert [name.split("-teacher")[0] for name in built] == ["hidden-0", "hidden-1", "hidden-2"]


def test_a_full_disk_is_told_before_the_pass(make_model, monkeypatch):
    teacher = toy_teacher(make_model)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"cache_teacher: the teacher's outputs take .* GB, but .* turn it off"):
        cached_layers(teacher, "teacher", teacher.task, TAPS, RunContext().keep)
