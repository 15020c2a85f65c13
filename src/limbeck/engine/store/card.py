"""The card of a stored object: how it was made, its task, and the SHA-256 of each of its files and of the card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from limbeck.core.finite import json_text
from limbeck.core.shape import canonical_json
from limbeck.errors import shown

CARD = "card.json"
_SEAL = "sha256"


@dataclass(frozen=True)
class Card:
    """A card that was read.

    Attributes:
        content: All of it, as plain JSON values.
        task: Fingerprint of the task.
        digests: SHA-256 of each file, by its name relative to the object.
        sizes: Bytes of each file, if an earlier version recorded nothing else.
    """

    content: Mapping[str, Any]
    task: str
    digests: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of the object; empty if an earlier version did not record it."""
        record = self.content.get("record")
        return str(self.content.get("key") or (record.get("key", "") if isinstance(record, dict) else ""))

    def size_problem(self, folder: Path) -> str | None:
        """Return which file is missing or has another size than recorded; None if none."""
        for name, size in self.sizes.items():
            path = folder / name
            seen = path.stat().st_size if path.is_file() else None
            if seen != size:
                return f"{name} " + ("is missing" if seen is None else f"has {seen} bytes instead of {size}")
        return None

    def with_digests(self, key: str, digests: Mapping[str, str]) -> Card:
        """Return the card of an object with its key, and with digests instead of sizes."""
        files = {name: digests[name] for name in self.sizes}
        return Card(sealed({**self.content, "format": 2, "key": key, "files": files}), self.task, files)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a card as a reader will see it, with its own digest."""
    plain: dict[str, Any] = json.loads(json_text({name: value for name, value in content.items() if name != _SEAL}))
    return plain | {_SEAL: _digest(plain)}


def read_card(folder: Path) -> Card:
    """Read and check the card of an object.

    Args:
        folder: Folder of the object.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a card, or was changed.
    """
    try:
        content = json.loads((folder / CARD).read_bytes())
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError(f"it should be an object, got {type(content).__name__}")
    task, files, seal = content.get("task"), content.get("files"), content.pop(_SEAL, None)
    if not isinstance(task, str) or PurePosixPath(task).name != task or task == "..":
        raise ValueError(f"'task' should be a fingerprint, got {shown(task)}")
    if not isinstance(files, dict) or not files or not all(map(_is_inside, files)):
        raise ValueError("'files' should name the files of the object")
    if content.get("format") == 1 and all(type(size) is int for size in files.values()):
        return Card(content, task, sizes=files)
    if content.get("format") != 2 or not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError(f"'format' should be 1 or 2, got {shown(content.get('format'))}")
    if seal != _digest(content):
        raise ValueError("its content is not what was written")
    return Card(content | {_SEAL: seal}, task, files)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.name != ""
