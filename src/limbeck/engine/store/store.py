"""The store: models by the hash of how they were made, and small results by name.

    limbeck-store.json  the mark by which gc recognizes a store
    objects/<key>/      a Hugging Face folder and card.json (record, parent, environment, seed, files, task);
                        epoch checkpoints in waypoints/
    tasks/<print>/      rows of a task, once per content
    memo/, kept/        see :mod:`limbeck.engine.store.facts`
    work/<key>/         checkpoints of a step in progress; kept when it is interrupted
    locks/, claims/     see :mod:`limbeck.engine.store.store_folder`
    quarantine/         objects and tasks that were found damaged
    trash/              what gc removes

An object appears by one rename, after its files are on the disk: it is whole or it is not there. Its card holds the
SHA-256 of every file, and an object is opened only if they agree. Deleting objects loses no facts. Nothing is
unpickled.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.candidate import Candidate
from limbeck.core.digests import files_of
from limbeck.core.finite import json_text, load_json
from limbeck.core.paths import default_root, user_path
from limbeck.core.task import Task
from limbeck.engine.store.card import CARD, Card, read_card, sealed
from limbeck.engine.store.facts import Facts
from limbeck.engine.store.store_folder import StoreFolder, refusal
from limbeck.errors import MissingExtra, ProcessLost, StoreError
from limbeck.storage.atomic import replacing, sync
from limbeck.storage.digests import damage, folder_digests
from limbeck.storage.disk import disk_full
from limbeck.storage.drafts import draft_folder
from limbeck.storage.machine_errors import MISSING, is_machine_error
from limbeck.storage.machine_lock import MachineLock

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable

__all__ = ["EPOCH_CHECKPOINTS", "Store", "refusal"]

EPOCH_CHECKPOINTS = "waypoints"  #: the folder of an object that holds them; a former name, which stored objects have


def _save_model(model: Runnable, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    from limbeck.model.checkpoints import save_model

    save_model(model, tokenizer, folder)


def _open_model(source: str | Path, **options: Any) -> tuple[Runnable, PreTrainedTokenizerBase]:
    from limbeck.model.checkpoints import open_model

    return open_model(source, **options)


def is_interruption(error: BaseException) -> bool:
    """Tell whether a step that ended so may go on from its checkpoints: nothing is wrong with the step or with them.

    Args:
        error: What ended it.
    """
    if not isinstance(error, Exception) or isinstance(error, (StoreError, ProcessLost, MissingExtra)):
        return True
    return disk_full(error) or is_machine_error(error)


@dataclass
class Store:
    """A folder of finished work. ``save``, ``open_model`` and ``open_task`` say how models and tasks are kept."""

    root: Path = field(default_factory=default_root)
    save: Callable[[Runnable, PreTrainedTokenizerBase, Path], None] = _save_model
    open_model: Callable[..., tuple[Runnable, PreTrainedTokenizerBase]] = _open_model
    open_task: Callable[[Path], Task] = Task.from_folder

    def __post_init__(self) -> None:
        self.root = user_path(self.root).absolute()
        self.folder = StoreFolder(self.root)
        self.facts = Facts(self.folder)
        self.objects, self.tasks, self.work = self.root / "objects", self.root / "tasks", self.root / "work"
        self._open_tasks: dict[str, Task] = {}

    @classmethod
    def of(cls, given: Store | str | Path | None) -> Store:
        """Return a store as it is, that of a folder, or the user's own for None."""
        return given if isinstance(given, Store) else cls(Path(given)) if given else cls()

    @property
    def notify(self) -> Callable[[str], None]:
        """Receives a message for the user: of damage, or of waiting for another run."""
        return self.folder.notify

    @notify.setter
    def notify(self, notify: Callable[[str], None]) -> None:
        self.folder.notify = notify

    def prepare(self) -> None:
        """Make the folders and check that they are writable, before any work starts."""
        self.folder.prepare()

    @contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold ``key`` against other runs on this store; the operating system releases it if this process dies."""
        with self.folder.lock(key, wait=wait) as held:
            yield held

    @property
    def machine(self) -> MachineLock:
        """Who may use this machine: work shares it, and a measurement has it alone."""
        return self.folder.machine

    # --- objects ---------------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Return whether the object is there and intact, and its task too; a damaged object is put aside."""
        card = self._intact_card(key)
        return card is not None and (self.tasks / card.task).is_dir()

    def lacks_task(self, key: str) -> bool:
        """Return whether the object is there and intact, but its task is not there."""
        card = self._intact_card(key)
        return card is not None and not (self.tasks / card.task).is_dir()

    def _intact_card(self, key: str) -> Card | None:
        self.folder.claim(self.objects / key)
        if not (self.objects / key).is_dir():
            return None
        try:
            card = self.card(key)
        except StoreError as error:
            self.quarantine(key, str(error))
            return None
        self.folder.claim(self.tasks / card.task)
        return card

    def card(self, key: str) -> Card:
        """Return the card of an object after checking its files."""
        folder = self.objects / key
        try:
            card = read_card(folder)
        except (*MISSING, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"object {key} in {self.root} is damaged: {CARD} cannot be read ({reason})") from None
        if card.key not in ("", key):
            raise StoreError(f"object {key} in {self.root} is damaged: its card is that of {card.key}")
        if problem := card.size_problem(folder) or damage(folder, card.digests):
            raise StoreError(f"object {key} in {self.root} is damaged: {problem}")
        if card.sizes:  # from a version that recorded only sizes; from now on its content is known
            self._check_opens(key)
            card = card.with_digests(key, folder_digests(folder))
            with suppress(OSError), replacing(folder / CARD) as draft:
                draft.write_text(json_text(card.content, indent=1), encoding="utf-8")
        return card

    def _check_opens(self, key: str) -> None:
        try:
            self.open_model(self.objects / key)
        except (MissingExtra, ImportError):
            raise
        except Exception as error:  # each file format has errors of its own for damage
            if is_machine_error(error):
                raise
            raise StoreError(f"object {key} in {self.root} is damaged: it cannot be opened ({error})") from error

    def open(self, key: str) -> Candidate:
        """Return a private copy of a stored candidate."""
        self.folder.claim(self.objects / key)
        card, folder = self.card(key), self.objects / key
        task = self.task(card.task)
        model, tokenizer = self.open_model(folder)
        epoch_checkpoints = tuple(sorted((folder / EPOCH_CHECKPOINTS).glob("*.safetensors")))
        return Candidate(model, tokenizer, task, folder, epoch_checkpoints=epoch_checkpoints)

    def put(self, key: str, candidate: Candidate, facts: Mapping[str, Any]) -> None:
        """Keep a candidate under its key. The caller holds the lock of the key.

        Args:
            key: Key of the object.
            candidate: The candidate to store.
            facts: What to record on the card, as plain JSON values.
        """
        fingerprint = self.keep_task(candidate.task)
        if self.has(key):
            return
        with self.folder.writing(), draft_folder(self.objects / key) as draft:
            self.save(candidate.model, candidate.tokenizer, draft)
            for path in candidate.epoch_checkpoints:
                (draft / EPOCH_CHECKPOINTS).mkdir(exist_ok=True)
                shutil.copyfile(path, draft / EPOCH_CHECKPOINTS / path.name)
            content = sealed({**facts, "format": 2, "key": key, "task": fingerprint, "files": folder_digests(draft)})
            (draft / CARD).write_text(json_text(content, indent=1), encoding="utf-8")
            _appear(draft, self.objects / key)

    def adopt(self, folder: Path, final: Path) -> None:
        """Keep a copy of a folder that is whole, unless there is one already.

        Args:
            folder: An object or a task from another store.
            final: Where it belongs.
        """
        self.folder.claim(final)
        if not final.is_dir():
            with self.folder.writing(), draft_folder(final) as draft:
                shutil.copytree(folder, draft, dirs_exist_ok=True)
                _appear(draft, final)

    def quarantine(self, key: str, reason: str) -> None:
        """Put a damaged object aside; it is made again when it is needed."""
        self._put_aside(self.objects / key, reason)

    def claim(self, base: str) -> None:
        """Let gc not remove an object, nor its siblings, whichever process has made or will make them.

        Args:
            base: Key of the object: a root, or the first child of a step; its siblings append their number.
        """
        self.folder.claim(self.objects / f"{base}*")

    def bytes_of(self, key: str) -> int | None:
        """Return the size of an object on the disk, if it exists."""
        folder = self.objects / key
        return sum(path.stat().st_size for path in files_of(folder)) if folder.is_dir() else None

    def release(self, *keys: str) -> None:
        """Let gc remove what this process used, except the objects of these keys and their tasks."""
        folders = [self.objects / key for key in keys]
        tasks = []
        for folder in folders:
            with suppress(OSError, ValueError):
                tasks.append(self.tasks / read_card(folder).task)
        self.folder.release(*folders, *tasks)

    # --- tasks -----------------------------------------------------------------------------------------------

    def task(self, fingerprint: str) -> Task:
        """Return a stored task; it is opened once, because tasks are values. A damaged one is put aside.

        Args:
            fingerprint: Fingerprint of the task.

        Raises:
            StoreError: It is missing or damaged.
        """
        if fingerprint not in self._open_tasks:
            folder = self.tasks / fingerprint
            self.folder.claim(folder)
            try:
                task = self.open_task(folder)
                if task.fingerprint != fingerprint:
                    raise ValueError(f"it holds the task {task.fingerprint}")
            except Exception as error:  # the readers of tasks have errors of their own for damage
                if is_machine_error(error):
                    raise
                if folder.is_dir():
                    self._put_aside(folder, f"task {fingerprint} cannot be opened ({error})")
                raise StoreError(f"the store {self.root} has no task {fingerprint}") from error
            self._open_tasks[fingerprint] = task
        return self._open_tasks[fingerprint]

    def use_task(self, task: Task) -> None:
        """Give candidates of this task's rows this very task, with what stored ones lack, as former label names."""
        self._open_tasks[task.fingerprint] = task
        self.folder.claim(self.tasks / task.fingerprint)

    def keep_task(self, task: Task) -> str:
        """Store a task, and return its fingerprint."""
        self.use_task(task)
        fingerprint = task.fingerprint
        folder = self.tasks / fingerprint
        if not folder.is_dir():
            with self.folder.writing(), draft_folder(folder) as draft:
                task.to_folder(draft)
                _appear(draft, folder)
        return fingerprint

    def task_history(self, key: str) -> list[dict[str, Any]]:
        """Return how the rows of a candidate's task were made (``Task.history``); empty if that cannot be read."""
        try:
            task = read_card(self.objects / key).task
            head = load_json((self.tasks / task / "task.json").read_text(encoding="utf-8"))
            return [dict(entry) for entry in head.get("history", ())]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []

    # --- work in progress --------------------------------------------------------------------------------------

    def scratch(self, key: str) -> Path:
        """Return the checkpoint folder of the step that makes ``key``; the same one after an interruption."""
        folder = self.work / key
        self.folder.claim(folder)
        with self.folder.writing():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def is_begun(self, key: str) -> bool:
        """Return whether the step that makes ``key`` has left checkpoints; those that were set aside come back."""
        folder, aside = self.work / key, self.work / f"{key}.aside"
        begun = folder.is_dir() and any(folder.iterdir())
        if begun or not aside.is_dir():
            return begun
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)  # the process that began the step again was killed before it had any
        return True

    @contextmanager
    def without_checkpoints(self, key: str) -> Iterator[None]:
        """Set the checkpoints of a step aside while the body begins it again; they come back if that fails too.

        A body that is interrupted goes on with checkpoints of its own, if it has left any.

        Args:
            key: What the step makes.
        """
        folder, aside = self.work / key, self.work / f"{key}.aside"
        self.folder.claim(aside)
        with self.folder.writing():
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        try:
            yield
        except BaseException as error:
            if not is_interruption(error):
                shutil.rmtree(folder, ignore_errors=True)
            self.is_begun(key)
            raise
        shutil.rmtree(aside, ignore_errors=True)

    def done(self, key: str) -> None:
        """Delete the checkpoints of a finished step."""
        for name in (key, f"{key}.aside"):  # the latter where an attempt to begin again was interrupted
            shutil.rmtree(self.work / name, ignore_errors=True)

    def _put_aside(self, path: Path, reason: str) -> None:
        """Move a damaged folder to the quarantine and report it; another process may have done so already."""
        aside = self.root / "quarantine" / f"{path.name}-{uuid.uuid4().hex[:6]}"
        with self.folder.writing():
            aside.parent.mkdir(exist_ok=True)
            try:
                path.rename(aside)
            except FileNotFoundError:
                return
        self.notify(f"{reason}; moved to {aside}, it will be made again")


def _appear(draft: Path, final: Path) -> None:
    """Rename a draft to its final name once all of it is on the disk."""
    for path in files_of(draft):
        sync(path)
    try:
        draft.rename(final)
    except OSError:
        if not final.is_dir():  # else another run was faster with the same content
            raise
    sync(final.parent)
