"""The folder of a store: its mark, its locks, and the claims of running processes.

A running process claims what it uses before it checks that it exists: it writes the name into a file of its own, which
it keeps locked. :mod:`limbeck.engine.store.gc` removes nothing that a living process has claimed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from limbeck.errors import StoreError
from limbeck.storage.atomic import replacing
from limbeck.storage.disk import disk_full, full_folder
from limbeck.storage.drafts import locked, remove_leftovers
from limbeck.storage.machine_lock import MachineLock

MARK = "limbeck-store.json"
"""The file that marks a folder as a store."""
FORMAT = 1
CLAIMS = "claims"
"""The lock for reading and writing claims, held for milliseconds, and the folder of the claims."""
_KEY = r"[0-9a-f]{16}"
_NAMES = {
    "objects": rf"{_KEY}(-\d+)?",
    "tasks": _KEY,
    "memo": r".*\.(json|npz)",
    "work": _KEY,
    "locks": r".*\.lock",
}
"""Patterns of the names in a store's folders; a folder with other names is not a store."""
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class StoreFolder:
    """A folder that holds a store, which may not exist yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notify: Callable[[str], None] = lambda message: None
        folder = weakref.ref(self)  # without a cycle: claims end when the last reference to the store is gone
        self.machine = MachineLock(root / "locks", lambda message: _notify(folder, message))
        self._claimed: set[str] = set()
        self._claim: Path | None = None
        self._claim_lock = ExitStack()  # released when this object, or this process, is gone
        self._tokens: dict[str, ExitStack] = {}

    # --- ownership ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the folders, check that they are writable, and remove what killed processes left."""
        self._check_ours()
        with self.writing():
            for name in ("objects", "tasks", "memo", "work", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self.mark()  # always, as it shows whether the disk can be written
        self.remove_leftovers()

    @property
    def marked(self) -> bool:
        """Whether the folder carries the mark of a store."""
        return (self.root / MARK).is_file()

    def mark(self) -> None:
        """Write the mark."""
        with self.writing(), replacing(self.root / MARK) as draft:
            draft.write_text(json.dumps({"limbeck store": FORMAT}) + "\n", encoding="utf-8")

    def check_store(self) -> None:
        """Refuse a folder that is not a store. One from before stores were marked is recognized by its layout."""
        if not self.marked:
            missing = [name for name in ("objects", "tasks", "memo", "locks") if not (self.root / name).is_dir()]
            if missing:
                raise StoreError(
                    f"{self.root} is not a limbeck store: it has no {MARK} and no folder '{missing[0]}'; nothing was "
                    "removed. Give the folder that --store or LIMBECK_STORE named when the runs were made"
                )
            self._check_ours()
            self.mark()

    def _check_ours(self) -> None:
        """Refuse to use folders whose content is not that of a store."""
        if self.marked:
            return
        for name, pattern in _NAMES.items():
            with suppress(FileNotFoundError, NotADirectoryError):
                for path in sorted((self.root / name).iterdir()):
                    if not path.name.startswith(".") and re.fullmatch(pattern, path.name) is None:
                        raise StoreError(
                            f"{self.root} is not a limbeck store: it has no {MARK}, and {name}/{path.name} is not "
                            "limbeck's; name a new folder"
                        )

    def remove_leftovers(self) -> None:
        """Remove drafts, claims and tokens of processes that are gone, and what an interrupted gc began to remove."""
        for name in ("", "objects", "tasks", "memo", "kept"):
            remove_leftovers(self.root / name)
        with self.lock(CLAIMS):
            self._living_claims()
            for path in (self.root / "locks").glob("token-*.lock"):
                with locked(path) as free:
                    if free:
                        path.unlink(missing_ok=True)
        with self.lock("gc", wait=False) as free:
            if free:
                shutil.rmtree(self.root / "trash", ignore_errors=True)

    # --- locks and claims --------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold ``key`` against other runs on this store; the operating system releases it if this process dies."""
        from filelock import FileLock, Timeout

        with self.writing():
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "locks" / f"{safe_name(key)}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if wait:
                    if key != CLAIMS:
                        self.notify(f"waiting for another run that is making {key}")
                    with self.machine.resting():
                        lock.acquire(poll_interval=0.1 if key != CLAIMS else 0.005)
            except NotImplementedError:
                raise StoreError(f"the file system of {self.root} has no locks; choose another store") from None
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def token(self) -> str:
        """Return the name of a new file among the locks, by which another process knows that it sees this folder."""
        name = f"token-{uuid.uuid4().hex}.lock"
        with self.writing(), self.lock(CLAIMS):
            path = self.root / "locks" / name
            path.touch()
            self._tokens[name] = ExitStack()
            self._tokens[name].enter_context(locked(path))  # or it would be a leftover
        return name

    def remove_token(self, name: str) -> None:
        """Remove a file that :meth:`token` made.

        Args:
            name: Its name.
        """
        with suppress(OSError):
            (self.root / "locks" / name).unlink()
        self._tokens.pop(name, ExitStack()).close()

    def claim(self, *paths: Path) -> None:
        """Announce that this process uses parts of the store, so that nobody removes them while it lives.

        Args:
            *paths: What it uses; a key that ends with '*' stands for all children of a step.
        """
        names = {path.relative_to(self.root).as_posix() for path in paths} - self._claimed
        if not names or not (self.root / "locks").is_dir():
            return
        try:
            with self.lock(CLAIMS):
                self._write_claim(self._claimed | names)
        except StoreError:  # it cannot be written, so nothing can be removed from it either
            return

    def release(self, *paths: Path) -> None:
        """Release all claims except those on some parts."""
        if self._claim is not None:
            names = {path.relative_to(self.root).as_posix() for path in paths}
            with suppress(StoreError), self.lock(CLAIMS):
                self._write_claim({name for name in names if is_claimed(name, self._claimed)})

    def claims_of_others(self) -> set[str]:
        """Return the claims of other living processes. The caller holds the lock ``CLAIMS``."""
        claims = [path for path in self._living_claims() if path != self._claim]
        return {name for path in claims for name in path.read_text(encoding="utf-8").splitlines()}

    def _write_claim(self, names: set[str]) -> None:
        if self._claim is None:
            self._claim = self.root / CLAIMS / uuid.uuid4().hex
            self._claim.parent.mkdir(exist_ok=True)
            self._claim.touch()
            self._claim_lock.enter_context(locked(self._claim))
        with self._claim.open("r+", encoding="utf-8") as stream:  # not replaced: the lock is on this file
            stream.truncate()
            stream.write("".join(f"{name}\n" for name in sorted(names)))
        self._claimed = names

    def _living_claims(self) -> list[Path]:
        """Return the claims of living processes and remove the others. The caller holds the lock ``CLAIMS``."""
        living = []
        with suppress(FileNotFoundError):
            for path in (self.root / CLAIMS).iterdir():
                with locked(path) as free:
                    if free:
                        path.unlink(missing_ok=True)
                    else:
                        living.append(path)
        return living

    # --- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn a full or unwritable disk into an error that says what to do."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            if message := refusal(error, self.root):
                raise StoreError(message) from error
            raise


def is_claimed(name: str, claims: Set[str]) -> bool:
    """Return whether a part of the store is claimed, by itself or with the other children of its step.

    Args:
        name: Its name below the root, such as 'objects/KEY'.
        claims: What is claimed.
    """
    return not claims.isdisjoint({name, f"{name.partition('-')[0]}*"})


def _notify(folder: weakref.ref[StoreFolder], message: str) -> None:
    """Pass a message on to the folder's listener, if the folder is still there."""
    if (alive := folder()) is not None:
        alive.notify(message)


def refusal(error: BaseException, root: Path) -> str | None:
    """Return a message for the user if ``error`` means a full or unwritable disk; None for any other error."""
    if disk_full(error):
        if (full := full_folder(error, root)) != root:
            return (
                f"the disk of the temporary folder {full} is full; free some space or set TMPDIR to a folder "
                "elsewhere, then run the same command again: what is finished is kept"
            )
        return (
            f"the disk of the store {root} is full; free some space ('limbeck gc RUN' leaves what an unfinished run "
            "goes on from), or move the store to another disk and set LIMBECK_STORE to it, then run the same command "
            "again: what is finished is kept"
        )
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return f"cannot write in the store {root}: {error}; set LIMBECK_STORE to a folder you may write"
    return None


def safe_name(name: str) -> str:
    """Return a file name for any text."""
    plain = re.sub(r"[^\w.-]", "_", name)[:100]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
