"""Options of commands that make candidates: on which machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from limbeck.distributed.config import ExecutorConfig, Kind
from limbeck.errors import InputError


@dataclass(frozen=True)
class Machines:
    """Where candidates are made. What is made is the same everywhere.

    Attributes:
        executor: One after another in this process (local), in worker processes, on a Ray cluster, or in Slurm jobs.
        workers: How many candidates are made at once.
        settings: A YAML file with a section 'executor': address of a cluster, threads, GPUs, partition.
    """

    executor: Kind | None = None
    workers: Annotated[int, Ge(1), Le(10_000)] | None = None
    settings: Path | None = None

    def config(self) -> ExecutorConfig:
        """Return the options of the executor: those of the settings file, and over them those of the command line.

        Raises:
            InputError: The file cannot be read, or a value has no meaning.
        """
        from limbeck.cli._app import check_options

        check_options(self)
        config = _read(self.settings) if self.settings is not None else ExecutorConfig()
        config = replace(config, executor=self.executor or config.executor, workers=self.workers or config.workers)
        config.check()
        return config


@dataclass(frozen=True)
class ExecutorOptions:
    """Where a step that has a field 'workers' is carried out, with pieces of it side by side.

    Attributes:
        executor: In this process, with --workers processes beside it (local); in --workers worker processes, on a Ray
            cluster, or in Slurm jobs.
        settings: A YAML file with a section 'executor': address of a cluster, threads, GPUs, partition.
    """

    executor: Kind | None = None
    settings: Path | None = None

    def config(self, workers: int | None) -> ExecutorConfig:
        """Return the options of the executor.

        Args:
            workers: The field of the step, if it is given.
        """
        given = Machines(self.executor, settings=self.settings).config()
        return given if given.executor == "local" else replace(given, workers=workers or given.workers)


def _read(path: Path) -> ExecutorConfig:
    from limbeck.recipe.validation import read
    from limbeck.storage import yaml_text

    data = yaml_text.load_file(path, "settings file")
    if not isinstance(data, dict) or "executor" not in data:
        raise InputError(f"{path}: has no section 'executor'")
    if others := sorted(map(str, {*data} - {"executor"})):
        raise InputError(f"{path}: there is no section '{others[0]}'; the only one is 'executor'")
    config, problems = read(ExecutorConfig, data["executor"], "executor")
    if config is None:
        raise InputError(f"{path}: " + "; ".join(f"{problem.path} {problem.message}" for problem in problems))
    return config
