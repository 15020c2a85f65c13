"""Folders that the user names for results: checked before work starts, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limbeck.errors import InputError, LimbeckError

PROBE_BYTES = 1 << 20
"""What is written to see whether a disk takes anything: about the configuration and the tokenizer of a model."""


_FULL = {errno.ENOSPC, errno.EDQUOT}


def disk_full(error: BaseException) -> bool:
    """Whether a disk ran full; safetensors says it in words, without an error number."""
    return getattr(error, "errno", None) in _FULL or "os error 28" in str(error)


def check_destination(path: Path, option: str = "--out", *, within: bool = False) -> None:
    """Refuse a folder that cannot be written, before hours of work and not after.

    Something is written and removed again where the folder will appear: permissions alone do not tell of read-only
    and full disks.

    Args:
        path: The folder; it and those above it need not exist.
        option: What the user knows it by.
        within: Files are added to the folder. Otherwise it is replaced as a whole, so that the folder above it must be
            writable, and a mount point cannot be it.

    Raises:
        InputError: nothing can be written there.
    """
    path = path.expanduser().absolute()
    if _exists(path) and not path.is_dir():
        raise InputError(f"{option} {path} is a file; name a folder that is new or empty")
    if not within and os.path.ismount(path):
        raise InputError(f"{option} {path} is a mount point, which cannot be replaced; name a folder inside it")
    existing = next(one for one in ([path] if within else []) + [*path.parents] if _exists(one))
    if not existing.is_dir():
        raise InputError(f"{option} {path} cannot be written: {existing} is a file; name another folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".limbeck-", dir=existing) as probe:
            Path(probe, "probe").write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {_reason(error, existing)}; name another") from error


@contextmanager
def whole_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Give an empty folder to fill, which becomes ``path`` in one step once the body is done.

    What was at ``path`` is gone then. If the body fails, nothing new is there, and what was there still is.

    Raises:
        LimbeckError: the disk is full or cannot be written.
    """
    path = path.expanduser().resolve()
    draft: Path | None = None
    with writing(path, option):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            draft.chmod(0o777 & ~_umask())  # mkdtemp makes private folders; a result is for others too
            yield draft
            replace_folder(draft, path)
        finally:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Turn the errors of a disk that is full or refuses, in the body, into one that says which and what to do."""
    try:
        yield
    except LimbeckError:
        raise
    except Exception as error:  # safetensors and others have errors of their own for a full disk
        if isinstance(error, OSError) or disk_full(error):
            raise LimbeckError(f"{option} {path} could not be written: {_reason(error, path.parent)}") from error
        raise


def replace_folder(draft: Path, path: Path) -> None:
    """Put a folder where another is; if that fails, the earlier one comes back."""
    if not path.exists():
        os.replace(draft, path)
        return
    aside = draft.with_name(draft.name + ".earlier")
    os.replace(path, aside)
    try:
        os.replace(draft, path)
    except OSError:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exists(path: Path) -> bool:
    with suppress(OSError):  # a folder that may not be looked into
        return path.exists()
    return False


def _reason(error: BaseException, place: Path) -> str:
    if not disk_full(error):
        return getattr(error, "strerror", None) or str(error)
    with suppress(OSError):
        return f"the disk is full ({shutil.disk_usage(place).free / 1e6:.1f} MB are free)"
    return "the disk is full"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
