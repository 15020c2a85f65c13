"""Output folders that the user names: checked before work starts, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limbeck.core.paths import user_path
from limbeck.errors import InputError, LimbeckError

PROBE_BYTES = 1 << 20
"""Size of the file that tests whether a disk accepts data: about a model's configuration and tokenizer."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


def disk_full(error: BaseException) -> bool:
    """Check whether an error means that a disk is full; safetensors reports that in its message, without an errno."""
    return (isinstance(error, OSError) and error.errno in _FULL) or "os error 28" in str(error)


def check_outside(path: Path, inputs: Iterable[str | Path | None], option: str = "--out") -> None:
    """Refuse an output folder that is, or lies in, a folder that is read: a model with other files is another model.

    Args:
        path: The output folder.
        inputs: Folders that are read; names that are no folders are skipped.
        option: What the user knows the output folder by.

    Raises:
        InputError: Names the input.
    """
    target = path.expanduser().resolve()
    for source in inputs:
        folder = Path(source).expanduser() if source else None
        if folder is not None and folder.is_dir() and target.is_relative_to(folder.resolve()):
            raise InputError(f"{option} {path} lies in {source}, which is read; name a folder outside it")


def check_destination(path: Path, option: str = "--out", *, within: bool = False) -> None:
    """Refuse a folder that cannot be written before hours of work start, not after them.

    Writes a temporary file where the folder will appear, because permissions do not reveal read-only and full disks.

    Args:
        path: The folder; neither it nor its parents need to exist.
        option: The command-line option that names the folder, for the error message.
        within: Files are added to the folder. Otherwise the whole folder is replaced, so its parent must be writable
            and it cannot be a mount point.

    Raises:
        InputError: The folder cannot be written.
    """
    path = user_path(path).absolute()
    if _exists(path) and not path.is_dir():
        raise InputError(f"{option} {path} is a file; name a folder that is new or empty")
    if not within and os.path.ismount(path):
        raise InputError(f"{option} {path} is a mount point, which cannot be replaced; name a folder inside it")
    existing = next(folder for folder in ([path] if within else []) + [*path.parents] if _exists(folder))
    if not existing.is_dir():
        raise InputError(f"{option} {path} cannot be written: {existing} is a file; name another folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".limbeck-", dir=existing) as probe:
            Path(probe, "probe").write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {_reason(error, existing)}; name another") from error


@contextmanager
def whole_folder(path: Path, option: str = "--out") -> Iterator[Path]:
    """Yield an empty folder to fill; when the body succeeds it replaces ``path`` in one step.

    If the body fails, ``path`` is left as it was.

    Args:
        path: The folder.
        option: What the user knows it by.

    Raises:
        LimbeckError: The disk is full or cannot be written.
    """
    path = user_path(path).resolve()
    draft: Path | None = None
    with writing(path, option):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            draft.chmod(0o777 & ~_umask())  # mkdtemp creates private folders; others should be able to read results
            yield draft
            replace_folder(draft, path)
        finally:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def writing(path: Path, option: str = "--out") -> Iterator[None]:
    """Turn write errors of the body into a LimbeckError that names the folder and the cause."""
    try:
        yield
    except LimbeckError:
        raise
    except Exception as error:  # safetensors and others raise their own errors when the disk is full
        if isinstance(error, OSError) or disk_full(error):
            raise LimbeckError(f"{option} {path} could not be written: {_reason(error, path.parent)}") from error
        raise


def replace_folder(draft: Path, path: Path) -> None:
    """Replace a folder by another; if that fails, restore the earlier one."""
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
    with suppress(OSError):  # a folder without search permission
        return path.exists()
    return False


def _reason(error: BaseException, folder: Path) -> str:
    if not disk_full(error):
        return (isinstance(error, OSError) and error.strerror) or str(error)
    with suppress(OSError):
        return f"the disk is full ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free)"
    return "the disk is full"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
