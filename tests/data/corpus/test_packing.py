import random

import numpy as np
import pytest

from limbeck.data.batching import collate, length_batches
from limbeck.data.corpus import packing as module
from limbeck.data.corpus.documents import Source
from limbeck.data.corpus.packing import frame_of, in_blocks, kept_corpus, pack
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError

TASK = toy_task(train=60, validation=20, test=20)
TOKENIZER = toy_tokenizer(TASK)
CLS, SEP = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id
WORDS = sorted({word for text in TASK.split("train").texts for word in text.split()})


@pytest.fixture
def text(tmp_path):
    """A text of 40 documents with sentences of 1 to 14 words, some longer than a sequence of 10 tokens."""
    rng = random.Random(0)
    documents = [
        [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(rng.randint(1, 9))] for _ in range(40)
    ]
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join("\n".join(document) for document in documents))
    return Source((str(path),)), documents


def folder_in(tmp_path):
    built = []

    def keep(name, build):
        folder = tmp_path / "kept" / name
        if not folder.exists():
            folder.mkdir(parents=True)
            built.append(name)
            build(folder)
        return folder

    keep.built = built
    return keep


def rows(corpus):
    return [list(map(int, row)) for row in corpus.input_ids]


def reference(documents, room):
    """Word by word: a sentence that fits goes on the line, one that does not begins a new line, a long one is cut."""
    built = []
    for document in documents:
        line = []
        for sentence in document:
            words = [TOKENIZER.convert_tokens_to_ids(word) for word in sentence.split()]
            while words:
                piece, words = words[:room], words[room:]
                if len(line) + len(piece) > room:
                    built.append([CLS, *line, SEP])
                    line = []
                for word in piece:
                    line.append(word)
        built.append([CLS, *line, SEP])
    return built


def test_sequences_equal_the_reference_and_hold_every_word_once(text, tmp_path):
    source, documents = text
    corpus, counts = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path))
    assert rows(corpus) == reference(documents, 8)
    words = [word for document in documents for sentence in document for word in sentence.split()]
    inner = [token for row in rows(corpus) for token in row[1:-1]]
    assert inner == TOKENIZER.convert_tokens_to_ids(words)
    assert counts.sentences == sum(map(len, documents))
    assert (counts.sequences, counts.tokens) == (len(corpus), sum(map(len, rows(corpus))))
    assert counts.cut == sum(len(sentence.split()) > 8 for document in documents for sentence in document) > 0
    assert list(corpus.lengths) == [len(row) for row in rows(corpus)]
    assert f"{counts.cut} too long for one sequence were cut" in str(counts)


def test_a_sequence_holds_one_document(text, tmp_path):
    source, documents = text
    corpus, _ = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path))
    index = 0
    remaining = [[word for sentence in document for word in sentence.split()] for document in documents]
    for row in rows(corpus):
        words = TOKENIZER.convert_ids_to_tokens(row[1:-1])
        assert remaining[index][: len(words)] == words
        del remaining[index][: len(words)]
        index += not remaining[index]
    assert not any(remaining)


def test_without_a_source_it_is_the_training_texts(tmp_path):
    corpus, _ = kept_corpus(None, TASK, TOKENIZER, 32, folder_in(tmp_path))
    assert rows(corpus) == [list(ids) for ids in TOKENIZER(list(TASK.split("train").texts))["input_ids"]]


def test_it_is_made_once_for_the_same_content(text, tmp_path):
    source, _ = text
    keep = folder_in(tmp_path)
    first = kept_corpus(source, TASK, TOKENIZER, 10, keep)
    TOKENIZER(["sunny"], truncation=True, max_length=4, padding="max_length")  # leaves its mark on the tokenizer
    second = kept_corpus(source, TASK, TOKENIZER, 10, keep, num_proc=2)
    assert len(keep.built) == 1
    assert rows(first[0]) == rows(second[0])
    assert first[1] == second[1]
    kept_corpus(source, TASK, TOKENIZER, 12, keep)
    kept_corpus(source, TASK, TOKENIZER, 10, keep, splits=("test",))
    assert len(set(keep.built)) == 3


def test_excluded_texts_are_removed_and_counted(tmp_path):
    test = TASK.split("test").texts
    mixed = tmp_path / "corpus.txt"
    other = tmp_path / "other.csv"
    mixed.write_text("\n\n".join(["sunny film", test[0].upper(), *TASK.split("train").texts, test[3] + " .", "a film"]))
    other.write_text("text,label\nA film,0\n")
    options = {"splits": ("validation", "test"), "exclude": (str(other),)}
    corpus, counts = kept_corpus(Source((str(mixed),)), TASK, TOKENIZER, 32, folder_in(tmp_path), **options)
    forbidden = {*test, *TASK.split("validation").texts}
    remaining_texts = [text for text in TASK.split("train").texts if text not in forbidden]
    expected = [TOKENIZER(text)["input_ids"] for text in ["sunny film", *remaining_texts]]
    assert rows(corpus) == expected
    assert counts.removed == 3 + len(TASK.split("train").texts) - len(remaining_texts)


class Interrupted(Exception):
    pass


def test_interrupted_and_resumed_it_is_the_same(text, tmp_path, monkeypatch):
    source, _ = text
    monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(module, "MAX_SENTENCES", 4)
    whole, expected = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path / "whole"))
    written, write = [], module._write_block

    def dies(block, work, folder, num_proc):
        if len(written) == 4:
            (folder.parent / f"{folder.name}.new").mkdir()  # killed while it wrote
            written.append(None)
            raise Interrupted
        written.append(folder.name)
        write(block, work, folder, num_proc)

    monkeypatch.setattr(module, "_write_block", dies)
    scratch, keep = tmp_path / "scratch", folder_in(tmp_path)
    with pytest.raises(Interrupted):
        kept_corpus(source, TASK, TOKENIZER, 10, keep, scratch=scratch)
    for folder in (tmp_path / "kept").iterdir():  # the store throws away what was not finished
        folder.rmdir()
    resumed, counts = kept_corpus(source, TASK, TOKENIZER, 10, keep, scratch=scratch)
    done = [name for name in written if name]
    assert len(done) == len(set(done)) > 5
    assert rows(resumed) == rows(whole)
    assert counts == expected
    assert not list(scratch.iterdir())


def test_several_processes_make_the_same(text, tmp_path, monkeypatch):
    import datasets

    source, _ = text
    serial, _ = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path / "one"), num_proc=1)
    monkeypatch.setattr(module, "MIN_SENTENCES", 60)  # sentences: the 40 documents have some 200
    processes, map_ = [], datasets.Dataset.map
    monkeypatch.setattr(datasets.Dataset, "map", lambda *a, **o: (processes.append(o["num_proc"]), map_(*a, **o))[1])
    parallel, _ = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path / "two"), num_proc=3)
    assert processes == [3]
    assert rows(parallel) == rows(serial)


def test_columns_and_rows_without_text_are_told(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": 1, "text": "sunny"}\n{"id": 2}\n{"id": 3, "text": null}\n')
    keep = folder_in(tmp_path)
    for _ in range(2):  # made, and found again
        _, counts = kept_corpus(Source((str(path),)), TASK, TOKENIZER, 10, keep)
        assert str(counts).endswith("; read from column 'text'; 2 rows have no 'text'")
    with pytest.raises(InputError, match="sst2: there is no such file"):
        kept_corpus(Source((str(path),)), TASK, TOKENIZER, 10, keep, exclude=("sst2",))


def test_no_text(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(InputError, match=r"there is no text in .*empty.txt"):
        kept_corpus(Source((str(empty),)), TASK, TOKENIZER, 10, folder_in(tmp_path))
    empty.write_text(TASK.split("test").texts[0])
    with pytest.raises(InputError, match="once 1 excluded texts are removed"):
        kept_corpus(Source((str(empty),)), TASK, TOKENIZER, 10, folder_in(tmp_path), splits=("test",))
    with pytest.raises(InputError, match="max_length: 2 leaves no room"):
        kept_corpus(None, TASK, TOKENIZER, 2, folder_in(tmp_path))


def test_blocks_hold_everything_in_order(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 5)
    monkeypatch.setattr(module, "MAX_SENTENCES", 3)
    documents = [list("abcdefg"), list("h"), list("ijk"), list("l")]
    blocks = list(in_blocks(documents))
    assert "".join(sentence for block in blocks for document in block for sentence in document) == "abcdefghijkl"
    assert blocks[0] == [["a", "b", "c"], ["d", "e", "f"]]


def test_nothing_is_packed_from_nothing():
    assert list(pack([], 5)) == list(pack([[], []], 5)) == []


def test_the_frame_is_what_the_tokenizer_adds():
    assert frame_of(TOKENIZER) == ([CLS], [SEP])


def test_held_out_sequences_are_the_rest(text, tmp_path):
    source, _ = text
    corpus, _ = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path))
    assert [len(part) for part in corpus.hold_out(0.999, 0)[0].hold_out(0.6, 0)] == [1, 0]  # one to train on stays
    train, held = corpus.hold_out(0.2, seed=3)
    assert len(held) == round(0.2 * len(corpus))
    assert sorted(rows(train) + rows(held)) == sorted(rows(corpus))
    assert rows(corpus.hold_out(0.2, seed=3)[1]) == rows(held) != rows(corpus.hold_out(0.2, seed=4)[1])
    again = train.hold_out(0.5, seed=0)
    assert sorted(rows(again[0]) + rows(again[1])) == sorted(rows(train))
    assert list(again[1].lengths) == [len(row) for row in rows(again[1])]


def test_batches_are_those_of_lists(text, tmp_path):
    from limbeck.data.batching import Encoded

    source, _ = text
    corpus, _ = kept_corpus(source, TASK, TOKENIZER, 10, folder_in(tmp_path))
    plain = Encoded(rows(corpus), None, (), corpus.pad_id, "corpus")
    batches = length_batches(corpus.lengths, 7, seed=0)
    assert batches == length_batches(plain.lengths, 7, seed=0)
    for indices in batches:
        streamed, expected = collate(corpus, indices), collate(plain, indices)
        assert streamed.keys() == expected.keys() == {"input_ids", "attention_mask", "index"}
        assert all((streamed[name] == expected[name]).all() for name in streamed)


def test_rows_are_read_from_several_chunks():
    import pyarrow as pa

    chunks = [pa.array([[1, 2], [3]], pa.list_(pa.int32())), pa.array([[4, 5, 6]], pa.list_(pa.int32()))]
    token_rows = module.TokenRows(chunks)
    assert [row.tolist() for row in token_rows] == [[1, 2], [3], [4, 5, 6]]
    assert token_rows.lengths.tolist() == [2, 1, 3]
    assert [row.tolist() for row in token_rows.take(np.array([2, 0]))] == [[4, 5, 6], [1, 2]]
    assert not token_rows[0].flags.owndata
