"""What libraries raise about a checkpoint becomes one error, which names the file where one is broken."""

from __future__ import annotations

import json

import pytest

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model._transformers import explained, explained_tokenizer
from limbeck.model.tokenizer_loading import open_plain_tokenizer, open_tokenizer

CONFIG = {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.fixture
def folder(tmp_path):
    tokenizer = toy_tokenizer(toy_task(train=8))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "intermediate_size": 16, "vocab_size": 99}))
    return tmp_path


def changed(**parts):
    return lambda text: json.dumps({**json.loads(text), **parts}).encode()


BROKEN = {
    "empty": ("tokenizer.json", lambda text: b"", "is empty"),
    "cut short": ("tokenizer.json", lambda text: text[: len(text) // 2].encode(), "cannot be read: EOF"),
    "a list": ("tokenizer.json", lambda text: b"[]", "cannot be read: invalid type: sequence"),
    "no model": ("tokenizer.json", lambda text: b"{}", "cannot be read: Model missing"),
    "not UTF-8": ("tokenizer.json", lambda text: b"\xff" + text.encode(), "cannot be read: .*UTF-8"),
    "odd model": ("tokenizer.json", changed(model={"type": "Sandpiece"}), "cannot be read: .*"),
    "odd part": ("tokenizer.json", changed(post_processor={"type": "X"}), "cannot be read: .*PostProcessor"),
    "settings": ("tokenizer_config.json", lambda text: b'{"pad_token": ', "is not JSON: "),
    "special tokens": ("special_tokens_map.json", lambda text: b"5", "should hold a JSON object, found int"),
    "added tokens": ("added_tokens.json", lambda text: b'{"x', "is not JSON: "),
}


@pytest.mark.parametrize(("name", "change", "message"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("read", [open_tokenizer, open_plain_tokenizer])
def test_a_broken_file_of_a_tokenizer_is_named(folder, read, name, change, message):
    path = folder / name
    path.write_bytes(change(path.read_text() if path.is_file() else ""))
    with pytest.raises(InputError, match=message) as caught:
        read(folder)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"a\nb\xe9\n", "is not UTF-8")])
def test_a_broken_vocabulary_is_named(folder, content, message):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_bytes(content)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(InputError, match=message) as caught:
        open_tokenizer(folder)
    assert str(folder / "vocab.txt") in str(caught.value)


def test_files_that_do_not_fit_each_other_are_listed(folder):
    (folder / "tokenizer_config.json").write_text('{"pad_token": 5}')
    with pytest.raises(
        InputError, match=r"tokenizer can be made of tokenizer.json, tokenizer_config.json: .*pad_token"
    ):
        open_tokenizer(folder)


class Panic(BaseException):
    """What Rust's panics look like in Python."""


@pytest.mark.parametrize("context", [explained, lambda source: explained_tokenizer(source, source)])
def test_any_error_of_a_library_is_one_line_and_those_of_the_user_pass(tmp_path, context):
    for error in (Panic("at the disco\nline 2"), KeyError("x"), RecursionError()):
        with pytest.raises(InputError, match=type(error).__name__) as caught, context(tmp_path):
            raise error
        assert "\n" not in str(caught.value)
    for error in (KeyboardInterrupt(), InputError("clear already")):
        with pytest.raises(type(error)), context(tmp_path):
            raise error
