"""A full disk is recognized, whatever library reports it."""

import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from limbeck.errors import LimbeckError
from limbeck.storage import disk
from limbeck.storage.disk import disk_full, full_folder


def write_all(text):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        stream.write(text)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "write",
    [
        lambda: write_all("x" * 100_000),
        lambda: torch.save({"a": torch.zeros(100_000)}, "/dev/full"),
        lambda: np.save(open("/dev/full", "wb"), np.zeros(100_000)),  # noqa: SIM115 closing it would fail again
        lambda: np.savetxt("/dev/full", np.zeros(100_000)),
    ],
)
def test_writers_of_many_libraries(write):
    with pytest.raises(Exception) as caught:
        write()
    assert disk_full(caught.value)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (OSError("1000000 requested and 131056 written"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (LimbeckError("the text 'No space left on device' was refused"), False),
    ],
)
def test_by_number_or_message(error, full):
    assert disk_full(error) is full


def test_safetensors_on_a_folder_is_no_full_disk(tmp_path):
    with pytest.raises(Exception) as caught:
        save_file({"a": torch.zeros(1)}, tmp_path)
    assert not disk_full(caught.value)


def test_which_disk_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    store, temporary = tmp_path / "store", tmp_path / "tmp"
    space = {store: True, temporary: True}
    monkeypatch.setattr(disk, "has_space", space.get)
    named = OSError(errno.ENOSPC, "full", str(temporary / "x" / "y"))
    assert full_folder(named, store) == temporary
    assert full_folder(OSError(errno.ENOSPC, "full", str(store / "x")), store) == store
    copied = OSError(errno.ENOSPC, "full", str(temporary / "store" / "x"), None, str(store / "x"))
    assert full_folder(copied, store) == store
    nameless = OSError(errno.ENOSPC, "full")
    assert full_folder(nameless, store) == store
    space[temporary] = False
    assert full_folder(nameless, store) == temporary
    space[store] = False
    assert full_folder(nameless, store) == store
