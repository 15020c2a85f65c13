"""What the pages of the documentation show: their blocks of code, and the commands among them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def read_pages(*paths: Path) -> dict[str, str]:
    """Texts of pages by their path in the repository."""
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def blocks(text: str, language: str) -> list[str]:
    """Blocks of code in a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every command of limbeck that a page shows in blocks, and of every ``bench`` in its text."""
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "limbeck" in words:
                yield words[words.index("limbeck") + 1 :]
    for line in re.findall(
        r"`limbeck (bench [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    ):
        if "…" not in line:
            yield shlex.split(line)
