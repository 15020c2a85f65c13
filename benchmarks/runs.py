"""What scripts that carry out whole runs and compare their times share."""

import json
import sys

from limbeck.core.statistics import median, paired_ratio


def command_of(folder, recipe, settings=None):
    """Write a recipe, and settings of an executor, to a folder; return the command that carries it out there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe)
    command = [sys.executable, "-m", "limbeck", "run", str(folder / "recipe.yaml"), "--folder", str(folder / "run")]
    command += ["--store", str(folder / "store")]
    if settings is not None:
        (folder / "settings.yaml").write_text(json.dumps({"executor": settings}))
        command += ["--settings", str(folder / "settings.yaml")]
    return command


def print_ratio(seconds, above, below, words, slower):
    """Print the median of each of two series of paired times, and the ratio of one to the other, with intervals."""
    for name, values in seconds.items():
        value, low, high = median(values)
        print(f"{name}: p50 {1e3 * value:.3f} ms [{1e3 * low:.3f}, {1e3 * high:.3f}]")
    ratio, low, high = paired_ratio(seconds[above], seconds[below])
    print(f"{words}: {ratio:.3f} [{low:.3f}, {high:.3f}] (above 1: {slower})")
