"""Objects, tasks and kept folders of a store as bytes, for machines that do not share its folder."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.core.finite import load_json
from limbeck.engine.store.store import Store
from limbeck.errors import StoreError
from limbeck.storage.digests import damage, folder_digests
from limbeck.storage.drafts import temporary_folder

KEPT_PREFIX = "kept/"
"""Begins the name of a kept folder; the names of objects are their keys."""
TASK = "tasks/"
"""Begins the name of a task."""


def has(store: Store, name: str) -> bool:
    """Return whether an object, a task or a kept folder is there and intact.

    Args:
        store: Where to look.
        name: Key of the object; ``tasks/`` with the fingerprint of the task; or ``kept/`` with the name of the folder.
    """
    if name.startswith(KEPT_PREFIX):
        return store.facts.kept_folder(name.removeprefix(KEPT_PREFIX)) is not None
    if name.startswith(TASK):
        return _has_task(store, name.removeprefix(TASK))
    return store.has(name)


def _has_task(store: Store, fingerprint: str) -> bool:
    try:
        store.task(fingerprint)
    except StoreError:
        return False
    return (store.tasks / fingerprint).is_dir()  # one that was opened before may be gone


def pack(store: Store, name: str) -> bytes:
    """Return an object and the rows of its task, a task, or a kept folder, as bytes.

    Args:
        store: Has it, whole.
        name: See :func:`has`.

    Raises:
        StoreError: It is not there.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if name.startswith(KEPT_PREFIX):
            folder = store.facts.kept_folder(name.removeprefix(KEPT_PREFIX))
            if folder is None:
                raise StoreError(f"the store {store.root} has no folder {name} any more; run again")
            archive.add(folder, "kept")
            _add(archive, "digests.json", json.dumps(folder_digests(folder)).encode())
        elif name.startswith(TASK):
            if not has(store, name):
                raise StoreError(f"the store {store.root} has no task {name.removeprefix(TASK)} any more; run again")
            archive.add(store.tasks / name.removeprefix(TASK), name)
        else:
            task = store.card(name).task
            archive.add(store.objects / name, "object")
            archive.add(store.tasks / task, f"tasks/{task}")
    return buffer.getvalue()


def unpack(store: Store, name: str, data: bytes) -> None:
    """Keep what :func:`pack` packed elsewhere; every file has a digest, which is checked.

    Args:
        store: Where to keep it.
        name: See :func:`has`.
        data: What was packed.

    Raises:
        StoreError: It is damaged, or another object.
    """
    if name.startswith(KEPT_PREFIX):
        store.facts.keep(name.removeprefix(KEPT_PREFIX), lambda folder: _unpack_kept(name, data, folder))
        return
    with store.lock(name):
        if has(store, name):
            return
        with _unpacked(name, data) as folder:
            for task in sorted((folder / "tasks").glob("*")):
                store.adopt(task, store.tasks / task.name)
            if not name.startswith(TASK):
                store.adopt(folder / "object", store.objects / name)
    if not has(store, name):
        raise StoreError(f"object {name} arrived damaged; what is wrong stands above")


def _unpack_kept(name: str, data: bytes, folder: Path) -> None:
    with _unpacked(name, data) as arrived:
        digests = load_json((arrived / "digests.json").read_text(encoding="utf-8"))
        if problem := damage(arrived / "kept", digests):
            raise StoreError(f"the folder {name} arrived damaged: {problem}")
        shutil.copytree(arrived / "kept", folder, dirs_exist_ok=True)


@contextmanager
def _unpacked(name: str, data: bytes) -> Iterator[Path]:
    """Yield a temporary folder with what was packed."""
    with temporary_folder() as folder:
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise StoreError(f"object {name} arrived damaged: {error}") from None
        yield folder


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
