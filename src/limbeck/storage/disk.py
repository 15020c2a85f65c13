"""Full disks: recognized whatever library reports them, and named."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from limbeck.errors import LimbeckError

PROBE_BYTES = 1 << 20
"""Size of the file that tests whether a disk accepts data: about a model's configuration and tokenizer."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


_FULL_MESSAGES = re.compile(
    r"os error (28|122)\b"  # safetensors and tokenizers, which are written in Rust
    r"|inline_container.*(unexpected pos|file write failed)"  # torch.save
    r"|\d+ requested and \d+ written"  # numpy.save
    r"|No space left on device",
    re.DOTALL,
)


def disk_full(error: BaseException) -> bool:
    """Check whether an error means that a disk is full; several libraries say so in their message, without an errno."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return not isinstance(error, LimbeckError) and _FULL_MESSAGES.search(str(error)) is not None


def full_folder(error: BaseException, folder: Path) -> Path:
    """Return the folder whose disk is full: ``folder``, or the one of temporary files.

    Args:
        error: An error for which :func:`disk_full` holds.
        folder: Where the work that failed writes its results.
    """
    named = None  # where only a handle was written
    if isinstance(error, OSError):
        named = error.filename2 or error.filename  # a copy names its source first
    temporary = Path(tempfile.gettempdir())
    if isinstance(named, str):
        return temporary if temporary in Path(named).parents and folder not in Path(named).parents else folder
    return temporary if has_space(folder) and not has_space(temporary) else folder


def has_space(folder: Path) -> bool:
    """Check whether a disk has room for more than a few files; True where that cannot be known."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free >= PROBE_BYTES
    return True
