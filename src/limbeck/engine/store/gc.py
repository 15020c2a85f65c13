"""Free a store's disk space: remove objects that nothing retains and no running process uses."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from limbeck.core.digests import files_of
from limbeck.engine.store.card import read_card
from limbeck.engine.store.store import Store
from limbeck.engine.store.store_folder import CLAIMS, is_claimed


@dataclass(frozen=True)
class Collected:
    """What was removed.

    Attributes:
        models: Number of models removed.
        bytes: Bytes freed.
        in_use: Number of models that stay because a running process uses them.
    """

    models: int = 0
    bytes: int = 0
    in_use: int = 0


def collect(store: Store, keep: Iterable[str] = (), *, unfinished: bool = False) -> Collected:
    """Remove all objects except those in ``keep``, checkpoints and stored answers; memo and ledgers stay.

    Everything that a running process makes, has made or uses stays, too. Objects disappear by one rename, so a reader
    finds one whole or not at all.

    Args:
        store: The store.
        keep: Keys of the objects to retain.
        unfinished: Whether a run that was interrupted will go on: checkpoints and stored answers then stay, too.

    Raises:
        StoreError: The folder is not a limbeck store.
    """
    if not store.root.is_dir():
        return Collected()
    store.folder.check_store()
    store.folder.remove_leftovers()
    trash = store.root / "trash"
    with store.lock("gc"), store.folder.writing():
        trash.mkdir(exist_ok=True)
        with store.lock(CLAIMS):  # from here on nobody can begin to use anything until it has been moved
            in_use = store.folder.claims_of_others()
            all_objects = list(store.objects.glob("[!.]*"))
            claimed = {path.name for path in all_objects if is_claimed(f"objects/{path.name}", in_use)}
            retained = {*keep, *claimed}
            objects = [path for path in all_objects if path.name not in retained]
            waiting = [
                *objects,
                *_rest(store.root, ("quarantine",) if unfinished else ("quarantine", "work", "kept"), in_use),
            ]
            tasks = {task for key in retained for task in _task_of(store.objects / key)}
            waiting += [path for path in store.tasks.glob("[!.]*") if path.name not in tasks | _tasks(in_use)]
            moved = [path.rename(trash / uuid.uuid4().hex) for path in waiting]
        freed = sum(file.stat().st_size for path in moved for file in files_of(path))
        shutil.rmtree(trash)
    return Collected(len(objects), freed, len(claimed - {*keep}))


def _rest(root: Path, folders: Iterable[str], in_use: set[str]) -> Iterator[Path]:
    """Yield the unused contents of other folders than that of objects."""
    for folder in folders:
        yield from (path for path in (root / folder).glob("[!.]*") if f"{folder}/{path.name}" not in in_use)


def _task_of(folder: Path) -> Iterator[str]:
    with suppress(OSError, ValueError):
        yield read_card(folder).task


def _tasks(in_use: set[str]) -> set[str]:
    return {name.removeprefix("tasks/") for name in in_use if name.startswith("tasks/")}
