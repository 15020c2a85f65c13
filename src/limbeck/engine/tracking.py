"""Experiment trackers of Accelerate: one run for each training, named by its position in the recipe; one for facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.errors import InputError, nearest, shown

PROJECT = "limbeck"
FOLDER = "runs/tracking"
RUN_NAME = {
    "wandb": "name",
    "trackio": "name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
    "clearml": "task_name",
}
"""Trackers that tell a project from its runs: the option that names a run. The others take one name for both."""


def check_tracker(name: str) -> None:
    """Refuse a tracker that Accelerate does not know, or whose package is missing, before any work starts."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    trackers = [str(kind) for kind in LOGGER_TYPE_TO_CLASS]
    if name not in trackers:
        raise InputError(f"--track: no tracker {shown(name)}; {nearest(name, trackers)}")
    if name not in [str(kind.value) for kind in get_available_trackers()]:
        raise InputError(f"--track {name}: the package is not installed; do: pip install {name}")


@dataclass
class _Series:
    """One run of the tracker; consecutive trainings in it continue the count of steps."""

    tracker: Any  # a GeneralTracker of Accelerate, which has no type hints
    last: int = 0
    offset: int = 0

    def log(self, numbers: Mapping[str, float]) -> None:
        step = int(numbers.get("step", self.last - self.offset + 1)) + self.offset
        if step < self.last:
            self.offset, step = self.last, step + self.last - self.offset
        self.last = step
        values = {name: value for name, value in numbers.items() if name not in ("step", "total")}
        if values:
            self.tracker.log(values, step=step)


class Tracking:
    """A listener that forwards the numbers of a recipe to a tracker."""

    def __init__(self, name: str, now: Callable[[], time.struct_time] = time.localtime) -> None:
        check_tracker(name)
        from accelerate import PartialState

        PartialState()  # trackers write on the main process only and ask it which one they are on
        self.name, self.stamp = name, time.strftime("%Y%m%d-%H%M%S", now())
        self.series: dict[tuple[str, str], _Series] = {}
        self.paths: dict[tuple[str, str], str] = {}
        self.steps: dict[str, str] = {}
        self.facts: list[dict[str, float]] = []

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Note where candidates are worked on; log numbers at once, and keep facts for the end."""
        match event["kind"]:
            case "candidate_start":
                self.paths[event["step"], event["key"]] = event["path"].replace("[", ".").replace("]", "")
            case "progress":
                identity = (event["step"], event["key"])
                if identity not in self.series:
                    self.series[identity] = _Series(self._open("-".join(self._words(*identity))))
                self.series[identity].log(event["numbers"])
            case "candidate_end":
                if series := self.series.pop((event.get("step", ""), event.get("key", "")), None):
                    series.tracker.finish()
            case "record":
                self.steps[event["key"]] = event["record"].step
            case "facts":
                candidate = "-".join(filter(None, (self.steps.get(event["key"]), event["key"])))
                for fact in event["facts"]:
                    name = "_".join(filter(None, (event.get("target"), fact["name"], fact.get("split"))))
                    self.facts.append({f"{candidate}/{name}": fact["value"]})

    def _words(self, step: str, key: str) -> list[str]:
        path = self.paths.get((step, key))
        return [*([path] if path else []), step, key]

    def _open(self, run: str) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        cls, run = LOGGER_TYPE_TO_CLASS[self.name], f"{self.stamp}-{run}"
        options = {"logging_dir": FOLDER} if cls.requires_logging_directory else {}
        if self.name in RUN_NAME:
            tracker = cls(PROJECT, **options, **{RUN_NAME[self.name]: run})
        else:
            tracker = cls(f"{PROJECT}-{run}", **options)
        if hasattr(tracker, "start"):
            tracker.start()
        return tracker

    def close(self) -> None:
        """Finish what was interrupted, and write the facts into a run of their own."""
        for series in self.series.values():
            series.tracker.finish()
        self.series.clear()
        if self.facts:
            tracker = self._open("measurements")
            for number, values in enumerate(self.facts, start=1):
                tracker.log(values, step=number)
            tracker.finish()
            self.facts.clear()
