"""The store: models by the hash of how they were made, and small results by name.

    objects/<key>/   a Hugging Face folder and card.json (record, parent, environment, seed, files, task); waypoints/
    tasks/<print>/   rows of a task, once per content
    memo/            children lists and facts (.json), arrays such as latency tables (.npz)
    kept/            folders made once, such as a teacher's outputs
    work/<key>/      checkpoints of a step in progress; kept when it is interrupted
    locks/           one file per key, so that two runs share work instead of repeating it
    quarantine/      objects that were found damaged

An object appears by one rename, after its files are on the disk: it is whole or it is not there. Deleting objects
loses no facts. Nothing is unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Candidate
from limbeck.core.finite import json_text
from limbeck.core.paths import cache_folder, user_path
from limbeck.errors import StoreError
from limbeck.storage.destination import disk_full

CARD = "card.json"
WAYPOINTS = "waypoints"
MACHINE = "machine"
"""The lock of whoever times something. Taken last, with no other lock inside, so that runs cannot block each other."""
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def default_root() -> Path:
    """``LIMBECK_STORE``, else a folder in the user's cache."""
    return Path(os.environ.get("LIMBECK_STORE") or cache_folder() / "limbeck")


def _save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    from limbeck.model.checkpoints import save_model

    save_model(model, tokenizer, folder)


def _open_model(source: str | Path, **options: Any) -> tuple[Any, Any]:
    from limbeck.model.checkpoints import open_model

    return open_model(source, **options)


def _open_task(folder: Path) -> Any:
    from limbeck.core.task import Task

    return Task.from_folder(folder)


@dataclass
class Store:
    """A folder of finished work. ``save``, ``open_model`` and ``open_task`` say how models and tasks are kept."""

    root: Path = field(default_factory=default_root)
    save: Callable[[Any, Any, Path], Any] = _save_model
    open_model: Callable[..., tuple[Any, Any]] = _open_model
    open_task: Callable[[Path], Any] = _open_task
    notify: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        self.root = user_path(self.root).absolute()
        self.objects, self.tasks = self.root / "objects", self.root / "tasks"
        self._memo, self._work, self._kept = self.root / "memo", self.root / "work", self.root / "kept"
        self._open_tasks: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make the folders and see that they can be written, before any work starts."""
        with self._writing():
            for name in ("objects", "tasks", "memo", "work", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"limbeck")
            probe.unlink()

    # --- objects ---------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Return whether the object exists and is intact; a damaged one is quarantined and reported."""
        if not (self.objects / key).is_dir():
            return False
        try:
            self.card(key)
        except StoreError as error:
            self.quarantine(key, str(error))
            return False
        return True

    def card(self, key: str) -> dict[str, Any]:
        """Return the card of an object after checking its files."""
        folder = self.objects / key
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            files = dict(card["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"object {key} in {self.root} is damaged: {CARD} cannot be read ({error})") from None
        for name, size in files.items():
            path = folder / name
            seen = path.stat().st_size if path.is_file() else None
            if seen != size:
                state = "is missing" if seen is None else f"has {seen} bytes instead of {size}"
                raise StoreError(f"object {key} in {self.root} is damaged: {name} {state}")
        if not (self.tasks / str(card["task"])).is_dir():
            raise StoreError(f"object {key} in {self.root} is damaged: its task {card['task']} is missing")
        return dict(card)

    def open(self, key: str) -> Candidate:
        """Return a private copy of a stored candidate."""
        card, folder = self.card(key), self.objects / key
        model, tokenizer = self.open_model(folder)
        epoch_checkpoints = tuple(sorted((folder / WAYPOINTS).glob("*.safetensors")))
        return Candidate(model, tokenizer, self.task(card["task"]), folder, epoch_checkpoints=epoch_checkpoints)

    def put(self, key: str, candidate: Candidate, card: Mapping[str, Any]) -> None:
        """Keep a candidate under its key. The caller holds the lock of the key.

        Args:
            key: Key of the object.
            candidate: The candidate to store.
            card: Facts to write beside the object.
        """
        if self.has(key):
            return
        fingerprint = self._keep_task(candidate.task)
        with self._appearing(self.objects / key) as folder:
            self.save(candidate.model, candidate.tokenizer, folder)
            for path in candidate.epoch_checkpoints:
                (folder / WAYPOINTS).mkdir(exist_ok=True)
                shutil.copyfile(path, folder / WAYPOINTS / path.name)
            _write_json(folder / CARD, {**card, "format": 1, "task": fingerprint, "files": _sizes(folder)})

    def quarantine(self, key: str, reason: str) -> None:
        """Put a damaged object aside; it is made again when it is needed."""
        with self._writing():
            (self.root / "quarantine").mkdir(exist_ok=True)
            aside = self.root / "quarantine" / f"{key}-{uuid.uuid4().hex[:6]}"
            (self.objects / key).rename(aside)
        self.notify(f"{reason}; moved to {aside}, it will be made again")

    def bytes_of(self, key: str) -> int | None:
        """Return the size of an object on the disk, if it exists."""
        folder = self.objects / key
        return sum(path.stat().st_size for path in _files(folder)) if folder.is_dir() else None

    def gc(self, keep: Iterable[str]) -> tuple[int, int]:
        """Remove all objects but those in ``keep``, and kept folders; memo and ledgers stay.

        Returns how many objects, and bytes freed.

        Objects that another run is making right now are left alone.
        """
        retained, removed, freed = set(keep), 0, 0
        if not self.objects.is_dir():
            return 0, 0
        rest = [path for path in self.objects.iterdir() if path.name not in retained]
        rest += list((self.root / "quarantine").glob("*")) + list(self._work.glob("*")) + list(self._kept.glob("*"))
        for path in rest:
            key = path.name.lstrip(".").split(".")[0].split("-")[0]
            if path.parent == self._kept:
                key = f"kept-{path.name}"
            with self.lock(key, wait=False) as held:
                if held:
                    freed += sum(file.stat().st_size for file in _files(path))
                    removed += path.parent == self.objects and not path.name.startswith(".")
                    shutil.rmtree(path)
        used = {self.card(path.name)["task"] for path in self.objects.glob("[!.]*") if self.has(path.name)}
        for folder in self.tasks.iterdir():
            if folder.name not in used:
                shutil.rmtree(folder)
        return removed, freed

    # --- tasks -----------------------------------------------------------------------------------------------

    def task(self, fingerprint: str) -> Any:
        """Return a stored task; it is opened once, because tasks are values."""
        if fingerprint not in self._open_tasks:
            self._open_tasks[fingerprint] = self.open_task(self.tasks / fingerprint)
        return self._open_tasks[fingerprint]

    def task_history(self, key: str) -> list[dict[str, Any]]:
        """Return how the rows of a candidate's task were made (``Task.history``); empty if that cannot be read."""
        try:
            card = json.loads((self.objects / key / CARD).read_text(encoding="utf-8"))
            head = json.loads((self.tasks / str(card["task"]) / "task.json").read_text(encoding="utf-8"))
            return [dict(entry) for entry in head.get("history", ())]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _keep_task(self, task: Any) -> str:
        fingerprint = str(task.fingerprint)
        self._open_tasks[fingerprint] = task
        if not (self.tasks / fingerprint).is_dir():
            with self._appearing(self.tasks / fingerprint) as folder:
                task.to_folder(folder)
        return fingerprint

    # --- memo ------------------------------------------------------------------------------------------------

    def recall(self, name: str) -> Any:
        """Return the small result stored under ``name``, or None."""
        path = self._memo / f"{_safe(name)}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            return None
        except ValueError:
            self.notify(f"{path} is damaged; it will be made again")
            return None

    def remember(self, name: str, value: Any) -> None:
        """Keep a small plain value under ``name``."""
        with self._writing():
            self._memo.mkdir(parents=True, exist_ok=True)
            path = self._memo / f"{_safe(name)}.json"
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            _write_json(temporary, value)
            _sync(temporary)
            temporary.replace(path)

    def memories(self, prefix: str) -> Iterator[Any]:
        """Yield all small results whose names begin with ``prefix``."""
        for path in sorted(self._memo.glob(f"{prefix}*.json")):
            value = self.recall(path.stem)
            if value is not None:
                yield value

    def memo(self, name: str, build: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return arrays computed once and stored under ``name``, which must identify their content."""
        path = self._memo / f"{_safe(name)}.npz"
        with self.lock(f"memo-{_safe(name)}"):
            stored = self._arrays(path)
            if stored is not None:
                return stored
            built = build()
            with self._writing():
                self._memo.mkdir(parents=True, exist_ok=True)
                self._write_arrays(path, built)
            return built

    def keep(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return a read-only folder that ``build`` fills once; ``name`` must identify its content."""
        folder = self._kept / _safe(name)
        with self.lock(f"kept-{_safe(name)}"):
            if folder.is_dir() and _sizes(folder) != self.recall(f"sizes-{name}"):
                self.notify(f"{folder} is damaged; it will be made again")
                shutil.rmtree(folder)
            if not folder.is_dir():
                with self._appearing(folder) as fresh:
                    build(fresh)
                    self.remember(f"sizes-{name}", _sizes(fresh))
        return folder

    def _arrays(self, path: Path) -> dict[str, Any] | None:
        import numpy as np

        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except Exception as error:  # zipfile, zlib and numpy each have errors of their own for damage
            self.notify(f"{path} is damaged ({error}); it will be made again")
            return None

    @staticmethod
    def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
        import numpy as np

        plain = {name: np.asarray(value) for name, value in arrays.items()}
        objects = [name for name, value in plain.items() if value.dtype == object]
        if objects:
            raise TypeError(f"memo {path.stem}: {', '.join(objects)} would have to be pickled; keep plain arrays")
        temporary = path.with_name(f".{uuid.uuid4().hex}.npz")
        try:
            np.savez(temporary, allow_pickle=False, **plain)
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    # --- work in progress --------------------------------------------------------------------------------------

    def scratch(self, key: str) -> Path:
        """Return the checkpoint folder of the step that makes ``key``; the same one after an interruption."""
        folder = self._work / key
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def done(self, key: str) -> None:
        """Delete the checkpoints of a finished step."""
        shutil.rmtree(self._work / key, ignore_errors=True)

    @contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold ``key`` against other runs on this store; the operating system releases it if this process dies."""
        from filelock import FileLock, Timeout

        with self._writing():
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "locks" / f"{_safe(key)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if wait:
                    self.notify(f"waiting for another run that is making {key}")
                    lock.acquire(poll_interval=0.1)
            except NotImplementedError:
                raise StoreError(f"the file system of {self.root} has no locks; choose another store") from None
        try:
            yield lock.is_locked
        finally:
            lock.release()

    @contextmanager
    def _appearing(self, final: Path) -> Iterator[Path]:
        """Give a folder to fill, which becomes ``final`` atomically once all of it is on the disk."""
        temporary = final.parent / f".{final.name}.{uuid.uuid4().hex[:8]}"
        with self._writing():
            try:
                temporary.mkdir(parents=True)
                yield temporary
                for path in _files(temporary):
                    _sync(path)
                try:
                    temporary.rename(final)
                except OSError:
                    if not final.is_dir():  # else another run was faster with the same content
                        raise
                _sync(final.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a refusing or full disk into an error that says what to do."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            if message := refusal(error, self.root):
                raise StoreError(message) from error
            raise


def refusal(error: BaseException, root: Path) -> str | None:
    """Return a message for the user if ``error`` means a full or unwritable disk; None for any other error."""
    if disk_full(error):
        return (
            f"the disk of the store {root} is full; free some space ('limbeck gc RUN') or set LIMBECK_STORE to a "
            "folder elsewhere, then run the same command again: what is finished is kept"
        )
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return f"cannot write in the store {root}: {error}; set LIMBECK_STORE to a folder you may write"
    return None


MODEL_SUFFIXES = {".json", ".safetensors", ".onnx", ".onnx_data", ".txt", ".model", ".data"}


def fingerprint(source: str | Path, store: Store) -> str:
    """Hash what decides a model: the content of a local folder, or the name of a remote one."""
    folder = user_path(source)
    if not folder.is_dir():
        return f"name:{source}"
    parts = []
    for path in _files(folder):
        if path.suffix in MODEL_SUFFIXES and path.name != CARD:
            parts.append((str(path.relative_to(folder)), _hash_file(path, store)))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _hash_file(path: Path, store: Store) -> str:
    """Hash a file; the result is cached by path, size and modification time."""
    status = path.stat()
    stamp = [str(path.resolve()), status.st_size, status.st_mtime_ns]
    name = "file-" + hashlib.sha256(stamp[0].encode()).hexdigest()[:16]  # type: ignore[attr-defined]
    stored = store.recall(name)
    if stored and stored["stamp"] == stamp:
        return str(stored["sha256"])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if status.st_size > 1 << 20:
        with suppress(StoreError):  # only a convenience: a dry run works on a store that cannot be written
            store.remember(name, {"stamp": stamp, "sha256": digest})
    return digest


def _safe(name: str) -> str:
    """Return a file name for any text."""
    plain = re.sub(r"[^\w.-]", "_", name)[:100]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json_text(value, indent=1), encoding="utf-8")


def _sync(path: Path) -> None:
    """Push a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
