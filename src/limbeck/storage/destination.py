"""Output folders that the user names: checked before work starts, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from limbeck.core.paths import user_path
from limbeck.errors import InputError, LimbeckError, shown
from limbeck.storage.disk import PROBE_BYTES, disk_full, full_folder
from limbeck.storage.drafts import draft_folder, draft_path, locked, remove_leftovers


def check_outside(path: Path, inputs: Iterable[str | Path | None], option: str = "--out") -> None:
    """Refuse an output folder that is, or lies in, a folder that is read: a model with other files is another model.

    Args:
        path: The output folder.
        inputs: Folders that are read; names that are no folders are skipped.
        option: What the user knows the output folder by.

    Raises:
        InputError: Names the input.
    """
    check_name(path, option)
    target = user_path(path).resolve()
    for source in inputs:
        folder = user_path(source) if source else None
        if folder is not None and folder.is_dir() and target.is_relative_to(folder.resolve()):
            raise InputError(f"{option} {path} lies in {source}, which is read; name a folder outside it")


def check_name(path: Path, option: str = "--out") -> None:
    """Refuse what can be no path: a name that is too long, or with a zero byte.

    Args:
        path: The output folder.
        option: What the user knows it by.

    Raises:
        InputError: Names the option.
    """
    try:
        path.lstat()
    except ValueError as error:
        raise InputError(f"{option} {shown(str(path))} can be no folder: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{option} {shown(str(path))} can be no folder: {error.strerror}") from error


def check_destination(path: Path, option: str = "--out", *, within: bool = False) -> None:
    """Refuse a folder that cannot be written before hours of work start, not after them.

    Writes a temporary file where the folder will appear, because permissions do not reveal read-only and full disks.
    Removes what a killed process left there.

    Args:
        path: The folder; neither it nor its parents need to exist.
        option: The command-line option that names the folder, for the error message.
        within: Files are added to the folder. Otherwise the whole folder is replaced, so its parent must be writable
            and it cannot be a mount point.

    Raises:
        InputError: The folder cannot be written.
    """
    check_name(path, option)
    path = user_path(path).absolute()
    if _exists(path) and not path.is_dir():
        raise InputError(f"{option} {path} is a file; name a folder that is new or empty")
    if not within and os.path.ismount(path):
        raise InputError(f"{option} {path} is a mount point, which cannot be replaced; name a folder inside it")
    existing = next(folder for folder in ([path] if within else []) + [*path.parents] if _exists(folder))
    if not existing.is_dir():
        raise InputError(f"{option} {path} cannot be written: {existing} is a file; name another folder")
    for name in (path.name, "limbeck-probe"):
        remove_leftovers(path.parent if name == path.name else existing, name)
    try:
        with draft_folder(existing / "limbeck-probe") as probe:
            (probe / "probe").write_bytes(bytes(PROBE_BYTES))
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
    with writing(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        with draft_folder(path) as draft:
            yield draft
            replace_folder(draft, path)


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
    aside = draft_path(path, "earlier")
    with locked(path):  # the lock follows the folder to its other name
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
    if (full := full_folder(error, folder)) != folder:
        return f"the disk of the temporary folder {full} is full; set TMPDIR to another folder"
    with suppress(OSError):
        return f"the disk is full ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free)"
    return "the disk is full"
