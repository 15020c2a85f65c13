"""Errors of the machine are told from those of a file's content."""

from __future__ import annotations

import errno

import pytest
import torch

from limbeck.errors import InputError
from limbeck.storage.machine_errors import is_machine_error


def caused_by(error):
    wrapped = InputError("cannot be opened as a model")
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (caused_by(MemoryError()), True),
        (caused_by(OSError(errno.EMFILE, "Too many open files")), True),
        (caused_by(KeyError("weight")), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory"), False),
        (OSError(errno.ENOTEMPTY, "Directory not empty"), False),
        (OSError("no file named model.safetensors"), False),
        (RuntimeError("size mismatch"), False),
        (None, False),
    ],
)
def test_errors_of_the_machine(error, expected):
    assert is_machine_error(error) is expected
