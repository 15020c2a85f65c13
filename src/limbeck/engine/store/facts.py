"""Small results by name, and folders that are built once: everything known without opening a model.

    memo/   plain values (.json) such as lists of children and measured facts; arrays (.npz) such as latency tables
    kept/   folders such as a teacher's outputs

Each is stored with its name and a digest. An entry that cannot be read, is damaged, or has an unexpected form
counts as absent: it is reported and rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from limbeck.core.digests import files_of
from limbeck.core.finite import json_text
from limbeck.core.shape import canonical_json
from limbeck.engine.store.store_folder import StoreFolder, safe_name
from limbeck.errors import shown
from limbeck.storage.atomic import replacing, sync
from limbeck.storage.digests import damage, folder_digests
from limbeck.storage.drafts import draft_folder

T = TypeVar("T")
_NAME = "limbeck.name"
"""The member of an .npz file that has its name."""
_ENVELOPE = {"name", "sha256", "value"}


class Facts:
    """The folders ``memo`` and ``kept`` of a store."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._memo, self._kept_root = folder.root / "memo", folder.root / "kept"

    def recall(self, name: str, read: Callable[[Any], T]) -> T | None:
        """Return the value stored under ``name``; None if there is none, or none that is intact.

        Args:
            name: Its name.
            read: Checks and converts the plain value; raises ValueError, TypeError or KeyError if it cannot.
        """
        return self._recall(self._memo / f"{safe_name(name)}.json", name, read)

    def remember(self, name: str, value: object) -> None:
        """Store a small plain value under ``name``."""
        plain = json.loads(json_text(value))  # what a reader will see
        envelope = {"name": name, "sha256": _digest(plain), "value": plain}
        with self._folder.writing():
            self._memo.mkdir(parents=True, exist_ok=True)
            with replacing(self._memo / f"{safe_name(name)}.json") as draft:
                draft.write_text(json_text(envelope, indent=1), encoding="utf-8")
                sync(draft)

    def all(self, prefix: str, read: Callable[[Any], T]) -> Iterator[T]:
        """Yield all intact values whose names begin with ``prefix``.

        Args:
            prefix: Beginning of the names.
            read: See :meth:`recall`.
        """
        for path in sorted(self._memo.glob(f"{prefix}*.json")):
            value = self._recall(path, None, read)
            if value is not None:
                yield value

    def arrays(self, name: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return arrays computed once and stored under ``name``, which must identify their content.

        Args:
            name: Their name.
            build: Computes them.
        """
        path = self._memo / f"{safe_name(name)}.npz"
        with self._folder.lock(f"memo-{safe_name(name)}"):
            stored = self._read_arrays(path, name)
            if stored is not None:
                return stored
            built = build()
            with self._folder.writing():
                self._memo.mkdir(parents=True, exist_ok=True)
                _write_arrays(path, name, built)
            return built

    def keep(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return a read-only folder that is filled once.

        Args:
            name: Identifies the content.
            build: Fills the folder.
        """
        folder = self._kept_root / safe_name(name)
        self._folder.claim(folder)
        with self._folder.lock(f"kept-{safe_name(name)}"):
            if folder.is_dir() and (problem := self._kept_damage(name, folder)):
                self._folder.notify(f"{folder} is damaged: {problem}; it will be made again")
                shutil.rmtree(folder)
            if not folder.is_dir():
                with self._folder.writing(), draft_folder(folder) as draft:
                    build(draft)
                    for path in files_of(draft):
                        sync(path)
                    self.remember(f"digests-{name}", folder_digests(draft))
                    draft.rename(folder)
                    sync(folder.parent)
        return folder

    def kept_folder(self, name: str) -> Path | None:
        """Return the folder that :meth:`keep` has filled, if it is there and intact.

        Args:
            name: Identifies the content.
        """
        folder = self._kept_root / safe_name(name)
        self._folder.claim(folder)
        return folder if folder.is_dir() and self._kept_damage(name, folder) is None else None

    def _kept_damage(self, name: str, folder: Path) -> str | None:
        digests = self.recall(f"digests-{name}", _strings)
        if digests is not None:
            return damage(folder, digests)
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files_of(folder)}
        if self.recall(f"sizes-{name}", dict) != sizes:
            return "its files are not those that were written"
        self.remember(f"digests-{name}", folder_digests(folder))  # from a version that recorded only sizes
        return None

    def _recall(self, path: Path, name: str | None, read: Callable[[Any], T]) -> T | None:
        try:
            text = path.read_bytes()
        except OSError:
            return None
        try:
            return read(_opened(json.loads(text), name))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._folder.notify(f"{path} is damaged ({_first_line(error)}); it will be made again")
            return None

    def _read_arrays(self, path: Path, name: str) -> dict[str, Any] | None:
        import numpy as np

        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {member: stored[member] for member in stored.files}
            if str(arrays.pop(_NAME, name)) != name:
                raise ValueError("it belongs under another name")
        except Exception as error:  # zipfile, zlib and numpy each have errors of their own for damage
            self._folder.notify(f"{path} is damaged ({_first_line(error)}); it will be made again")
            return None
        return arrays


def _opened(stored: Any, name: str | None) -> Any:
    """Return the value inside its envelope, after checking name and digest; older versions stored the value alone."""
    if not isinstance(stored, Mapping) or stored.keys() != _ENVELOPE:
        return stored
    if name not in (None, stored["name"]):
        raise ValueError(f"it belongs under the name {shown(stored['name'])}")
    if _digest(stored["value"]) != stored["sha256"]:
        raise ValueError("its content is not what was written")
    return stored["value"]


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _strings(value: Any) -> dict[str, str]:
    if not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise ValueError("digests should be text by name")
    return dict(value)


def _write_arrays(path: Path, name: str, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    plain = {member: np.asarray(value) for member, value in arrays.items()}
    objects = [member for member, value in plain.items() if value.dtype == object]
    if objects:
        raise TypeError(f"memo {path.stem}: {', '.join(objects)} would have to be pickled; keep plain arrays")
    with replacing(path) as draft:
        with draft.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **plain, **{_NAME: np.asarray(name)})
        sync(draft)
