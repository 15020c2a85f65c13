"""Only regular files of a bounded size are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from limbeck.errors import InputError
from limbeck.storage.text_file import read_text, regular_file


def test_a_file_is_read_without_its_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfab\r\n")
    assert read_text(path, 10) == "ab\r\n"


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    named = {
        tmp_path: "is a folder",
        tmp_path / "pipe": "is a named pipe",
        tmp_path / "none": "cannot be read: No such file",
        tmp_path / "loop": "cannot be read: Too many levels",
        tmp_path / ("x" * 400): "cannot be read: File name too long",
        tmp_path / "a\0b": "cannot be read: ",
        Path("/dev/zero"): "is a device",
    }
    for path, message in named.items():
        with pytest.raises(InputError, match=message):
            regular_file(path)


def test_size_and_encoding_are_checked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\xff")
    with pytest.raises(InputError, match=r"has 4 bytes, more than the 3"):
        read_text(path, 3)
    with pytest.raises(InputError, match=r"is not UTF-8 \(byte 3\)"):
        read_text(path, 4)
