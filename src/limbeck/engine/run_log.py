"""Report the events of a run to the ledger and to the listener that displays them; isolate failures."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record
from limbeck.engine.result import Failure
from limbeck.engine.store.ledger import Ledger, record_to_json
from limbeck.engine.store.store import Store, refusal
from limbeck.errors import LimbeckError, ProcessLost, ServiceError, StoreError, UndeclaredService
from limbeck.storage.disk import disk_full
from limbeck.storage.machine_lock import Use

OnEvent = Callable[[dict[str, Any]], None]


class RunLog:
    """The ledger and the listener of a run, the failures so far, and the records that were written."""

    def __init__(self, folder: Path, store: Store, on_event: OnEvent) -> None:
        """Open the ledger.

        Args:
            folder: Folder of the run.
            store: Where finished work is kept; its messages go to the ledger, too.
            on_event: Receives each event as a dictionary.
        """
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.emit = on_event
        self.failed: list[Failure] = []
        self.written: dict[str, None] = {}  # keys, in the order of the ledger
        self._store = store

    def begin(self, **run: object) -> None:
        """Write the first line of a run, report unreadable lines, and listen to the store."""
        self.ledger.read()
        problem = self.ledger.unreadable()
        self.ledger.append("run", **run)
        self._store.notify = lambda message: self.note(message, kind="store")
        self._store.machine.used = self.use
        if problem:
            self.note(f"{problem}; they are ignored")

    def write(self, record: Record) -> None:
        """Write a record, once."""
        if record.key not in self.written:
            self.written[record.key] = None
            self.rewrite(record)

    def rewrite(self, record: Record, target: str = "") -> None:
        """Write a record that has changed.

        Args:
            record: The record.
            target: The target that its facts and notes are for, where the recipe has several.
        """
        self.ledger.append("record", record=record_to_json(record), **({"target": target} if target else {}))
        self.emit({"kind": "record", "key": record.key, "record": record})

    def note(self, message: str, kind: str = "note") -> None:
        """Write a message; ``kind`` is how the listener sees it."""
        self.ledger.append("note", message=message)
        self.emit({"kind": kind, "message": message})

    def use(self, use: Use) -> None:
        """Write when a process worked or measured, so that a reader can see that neither disturbed the other."""
        self.ledger.append("use", **use._asdict())

    def step(self, step: str, key: str, message: str, /, **numbers: float) -> None:
        """Write a step's message to the ledger; send numbers (step, total, loss) to the listener only.

        Args:
            step: Name of the step.
            key: Key of the candidate that it works on.
            message: The message; may be empty.
            **numbers: Progress of a training.
        """
        if message:
            self.ledger.append("note", step=step, key=key, message=message)
            self.emit({"kind": "log", "step": step, "key": key, "message": message})
        if numbers:
            self.emit({"kind": "progress", "step": step, "key": key, "numbers": numbers})

    def of(self, step: str, key: str) -> Callable[..., None]:
        """Return ``step`` for one step and candidate: what a step finds as ``context.log``."""
        return partial(self.step, step, key)

    @contextmanager
    def isolate_failure(self, path: str, step: str, key: str = "") -> Iterator[None]:
        """Report a failure and continue; only an unusable store or service, or a lost process, ends the run.

        Args:
            path: Location of the step in the recipe.
            step: Name of the step.
            key: Key of the candidate.
        """
        try:
            yield
        except (StoreError, ProcessLost, ServiceError):
            raise
        except Exception as error:  # whatever a step raises concerns one candidate
            if disk_full(error):
                raise StoreError(refusal(error, self._store.root)) from error
            expected = isinstance(error, LimbeckError) and not isinstance(error, UndeclaredService)
            message = str(error) if expected else f"{type(error).__name__}: {error}"
            failure = Failure(path, step, key, message, "" if expected else traceback.format_exc())
            self.failed.append(failure)
            self.ledger.append("failed", failure=asdict(failure))
            self.emit({"kind": "failed", **asdict(failure)})
