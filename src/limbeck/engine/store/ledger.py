"""The ledger: an append-only event log, from which the records of a run are reconstructed.

Every line is one JSON object with ``event``, ``time`` and ``run``, written in one piece and flushed to disk. A line
that is torn by a crash or damaged is skipped and reported (``Ledger.torn``, ``Ledger.unreadable``). Events: run,
record, facts, failed, choice, note, use, finished.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.core.candidate import Record, lineage
from limbeck.core.finite import json_text, load_json
from limbeck.core.measurement import merge
from limbeck.engine.store.stored_form import check_event, read_fact, read_record
from limbeck.errors import LISTED, InputError, StoreError
from limbeck.storage.disk import disk_full

EVENTS = frozenset({"run", "record", "facts", "failed", "choice", "note", "use", "finished"})


def record_to_json(record: Record) -> dict[str, Any]:
    """Return a record as plain data."""
    return {
        "key": record.key,
        "parent": record.parent,
        "step": record.step,
        "parameters": dict(record.parameters),
        "shape": record.shape.to_json() if record.shape else None,
        "traits": sorted(record.traits),
        "facts": [fact.to_json() for fact in record.facts],
        "duration": record.duration,
        "notes": list(record.notes),
    }


def descends(records: Mapping[str, Record], key: str, ancestor: str | None) -> bool:
    """Return whether a candidate is another one, or was made from it.

    Args:
        records: All records.
        key: Key of the candidate.
        ancestor: Key of the other one.
    """
    return any(record.key == ancestor for record in lineage(records, key))


class Ledger:
    """The file ``ledger.jsonl`` of a run folder. Runs of one folder append to it, one after another."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.path = self.path / "ledger.jsonl"
        self.run = uuid.uuid4().hex[:8]
        self.torn: list[int] = []
        self._newest_run = 0  # its line

    def append(self, event: str, **data: object) -> None:
        """Write one line and flush it to disk."""
        assert event in EVENTS, f"unknown event {event}"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json_text({"event": event, "time": now, "run": self.run, **data})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                row = self._closing(handle) + line.encode() + b"\n"
                if os.write(handle, row) < len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            reason = "the disk is full; free some space and run again" if disk_full(error) else str(error)
            raise StoreError(f"the ledger {self.path} cannot be written: {reason}") from error

    @staticmethod
    def _closing(handle: int) -> bytes:
        """Return a line end if a crash left the last line without one, else nothing."""
        size = os.fstat(handle).st_size
        return b"" if size == 0 or os.pread(handle, 1, size - 1) == b"\n" else b"\n"

    def read(self) -> list[dict[str, Any]]:
        """Read all events; ``torn`` then has the numbers of torn or malformed lines."""
        events: list[dict[str, Any]] = []
        self.torn, self._newest_run = [], 0
        if not self.path.is_file():
            return events
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                events.append(check_event(load_json(line)))
            except (ValueError, RecursionError):
                self.torn.append(number)
                continue
            if events[-1]["event"] == "run":
                self._newest_run = number
        return events

    def unreadable(self, *, newest: bool = False) -> str:
        """Say which of the lines that were read last cannot be used; empty if all can.

        Args:
            newest: Count only those after the beginning of the newest run.
        """
        lines = [number for number in self.torn if not newest or number > self._newest_run]
        if not lines:
            return ""
        numbers = ", ".join(map(str, lines[:LISTED])) + (", …" if len(lines) > LISTED else "")
        count = "1 line" if len(lines) == 1 else f"{len(lines):,} lines"
        return f"{count} of {self.path} cannot be read ({numbers}): torn by a crash, or damaged"

    def newest_run(self) -> dict[str, Any] | None:
        """Return the event with which the newest run began; None if there is none."""
        return next((event for event in reversed(self.read()) if event["event"] == "run"), None)

    def last(self) -> list[dict[str, Any]]:
        """Return the events of the newest run only."""
        events = self.read()
        runs = [event["run"] for event in events if event["event"] == "run"]
        if not runs:
            reason = f" ({problem})" if (problem := self.unreadable()) else ""
            raise InputError(f"{self.path} describes no run{reason}; give the folder of a run, such as runs/quickstart")
        return [event for event in events if event.get("run") == runs[-1]]

    def records(
        self, events: Iterable[Mapping[str, Any]] | None = None, target: str | None = None
    ) -> dict[str, Record]:
        """Return every record with its facts.

        Args:
            events: Events to read; those of all runs unless given.
            target: The target whose facts and notes count, where a recipe has several; all of them unless given.
        """
        records: dict[str, Record] = {}
        for event in self.read() if events is None else events:
            if target is not None and event.get("target", target) != target:
                continue
            if event["event"] == "record":
                new = read_record(event["record"])
                earlier = records[new.key].facts if new.key in records else ()
                records[new.key] = replace(new, facts=merge(earlier, new.facts))
            elif event["event"] == "facts" and event["key"] in records:
                old = records[event["key"]]
                fresh = [read_fact(fact) for fact in event["facts"]]
                records[old.key] = replace(old, facts=merge(old.facts, fresh))
        return records

    def ancestors(self, key: str) -> list[Record]:
        """Return the records from the root to ``key``, which may be shortened as long as it stays unique."""
        records = self.records()
        full = [name for name in records if name.startswith(key)]
        if key not in records and len(full) != 1:
            matches = "no record has" if not full else f"{len(full)} records have"
            reason = f"; {problem}" if (problem := self.unreadable()) else ""
            raise InputError(f"{matches} the key '{key}' in {self.path}{reason}")
        return lineage(records, key if key in records else full[0])
