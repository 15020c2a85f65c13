"""Objects of a store as bytes, for machines that do not share its folder."""

from __future__ import annotations

import io
import tarfile

from limbeck.engine.store import Store
from limbeck.errors import StoreError
from limbeck.storage.drafts import temporary_folder


def pack(store: Store, key: str) -> bytes:
    """Return an object and the rows of its task as bytes.

    Args:
        store: Has the object, whole.
        key: Its key.
    """
    task = store.card(key).task
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(store.objects / key, "object")
        archive.add(store.tasks / task, f"tasks/{task}")
    return buffer.getvalue()


def unpack(store: Store, key: str, data: bytes) -> None:
    """Keep an object that :func:`pack` packed elsewhere; its card has the digest of every file, which are checked.

    Args:
        store: Where to keep it.
        key: Its key.
        data: What was packed.

    Raises:
        StoreError: It is damaged, or another object.
    """
    with store.lock(key):
        if store.has(key):
            return
        with temporary_folder() as folder:
            try:
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    archive.extractall(folder, filter="data")
            except tarfile.TarError as error:
                raise StoreError(f"object {key} arrived damaged: {error}") from None
            for task in sorted((folder / "tasks").glob("*")):
                store.adopt(task, store.tasks / task.name)
            store.adopt(folder / "object", store.objects / key)
    if not store.has(key):
        raise StoreError(f"object {key} arrived damaged; what is wrong stands above")
