"""Where NSGA-II keeps its study, a group of fields; imports neither torch nor optuna."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from limbeck.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from limbeck.search.strategies import StudyFile


@dataclass(frozen=True)
class StudyConfig:
    """A study that other processes may join.

    Attributes:
        storage: Where nsga2 keeps its trials, so that other processes and machines can join, and later searches
            continue: a file that all of them see, or the URL of a database (sqlite:///…) [default: a private file].
        study_name: Name of the search in the storage [default: made from what is searched].
    """

    storage: str | None = None
    study_name: str | None = None

    def problems(self, method: str) -> list[str]:
        """Return the conflicts with the method of the search."""
        problems = []
        if self.storage is not None and method != "nsga2":
            problems.append(f"storage needs method: nsga2, got method: {method}")
        if self.study_name is not None and self.storage is None:
            problems.append("study_name needs a storage")
        return problems

    def file_problems(self, method: str) -> list[str]:
        """Return the problems of the storage, and a missing package."""
        if method == "nsga2" and find_spec("optuna") is None:
            return [f"method: {MissingExtra('optuna', 'search')}"]
        if self.storage is None:
            return []
        from limbeck.search.nsga2 import unusable

        return unusable(self.storage)

    def file(self, scratch: Path | None, settings: Mapping[str, str]) -> StudyFile:
        """Return where the study is kept.

        Args:
            scratch: The step's own folder; None keeps a study without a storage in memory.
            settings: What all that share the study must agree in.
        """
        from limbeck.search.strategies import StudyFile

        storage = self.storage or (scratch / "study.jsonl" if scratch else None)
        return StudyFile(storage, self.study_name or "", settings, shared=self.storage is not None)
