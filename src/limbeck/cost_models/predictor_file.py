"""A latency predictor as a file: one line of JSON with the measured shapes, to which it is fitted again when opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from limbeck.core.finite import load_json
from limbeck.core.paths import user_path
from limbeck.core.shape import canonical_json
from limbeck.core.target import Target
from limbeck.cost_models.boosted_fit import check_extra
from limbeck.cost_models.latency_dataset import read
from limbeck.cost_models.latency_predictor import FEWEST, Predictor
from limbeck.data.readers import missing_file, plural
from limbeck.errors import InputError, LimbeckError
from limbeck.storage.atomic import replacing

FORMAT, VERSION = "limbeck latency predictor", 1


def is_predictor(path: str | Path) -> bool:
    """Return whether a file holds a predictor, by its first bytes."""
    start = f'{{"format":"{FORMAT}"'.encode()
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(start)) == start


def write_predictor(predictor: Predictor, path: str | Path) -> None:
    """Write a predictor, completely or not at all."""
    plain = {"format": FORMAT, "version": VERSION, "predictor": predictor.to_json()}
    with replacing(Path(path)) as draft:
        draft.write_text(canonical_json(plain) + "\n", encoding="utf-8")


def read_predictor(path: str | Path, **criteria: object) -> Predictor:
    """Read a predictor; the fit is repeated, with the same result.

    Args:
        path: The file.
        **criteria: What it has to hold for: ``number_format``, ``seq_len`` or a field of the target, by name.

    Raises:
        InputError: It is another kind of file, it is damaged, or the predictor holds for something else.
    """
    if not Path(path).is_file():
        raise InputError(missing_file(Path(path)))
    if not is_predictor(path):
        raise InputError(f"{path} is not a latency predictor; make one with 'limbeck predictor DATA --out FILE'")
    try:
        plain = load_json(Path(path).read_text(encoding="utf-8"))
        version, predictor = plain["version"], Predictor.from_json(plain["predictor"])
        if not all(0 < seconds < math.inf for seconds in predictor.seconds):
            raise ValueError("a duration is not above 0 and finite")
    except (ValueError, KeyError, TypeError, AttributeError, LimbeckError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); make it again") from None
    if version != VERSION:
        raise InputError(f"{path} has version {version} of the format, this limbeck reads {VERSION}; update limbeck")
    setting = predictor.setting
    own = {"number_format": setting.number_format, "seq_len": setting.seq_len, "machine": predictor.machine}
    holds = asdict(setting.target) | own  # with the fields that keys leave out at their default
    if other := [
        f"{name} {holds[name]} instead of {value}" for name, value in criteria.items() if holds[name] != value
    ]:
        raise InputError(f"{path} predicts latency for {', '.join(other)}")
    return predictor


def open_predictor(
    path: str | Path, target: Target, number_format: str, log: Callable[..., None] = lambda message: None
) -> Predictor:
    """Read a predictor, or fit one to a file of latency data, which may come from another machine.

    Args:
        path: File of a predictor or of latency data.
        target: Selects the series: device, runtime, threads, batch and, if it names one, the sequence length.
        number_format: ``float`` or ``int8``.
        log: Called with one line about the fit.

    Raises:
        InputError: No series of the file fits, or several do.
    """
    check_extra()
    path = user_path(path)
    criteria: dict[str, object] = {"number_format": number_format, "device": target.device, "runtime": target.runtime}
    criteria |= {name: getattr(target, name) for name in ("threads", "batch", "precision", "compile")}
    if target.seq_len:
        criteria["seq_len"] = target.seq_len
    predictor = fit_predictor(path, 0, **criteria)
    summary = f"{len(predictor.shapes)} shapes, median error {predictor.errors.median:.1%}"
    log(f"latency of machine {predictor.machine}: learned from {summary}")
    return predictor


def fit_predictor(path: str | Path, seed: int = 0, **criteria: object) -> Predictor:
    """Read a predictor, or fit one to the only series of a file of latency data that meets the criteria.

    Args:
        path: File of a predictor or of latency data.
        seed: Seed of a new fit.
        **criteria: ``number_format``, ``seq_len``, ``machine`` or a field of the target, by name.

    Raises:
        InputError: No series of the file fits, several do, or it has too few shapes.
    """
    if is_predictor(path):
        return read_predictor(path, **criteria)
    data = read(path)
    try:
        return Predictor.of(data.series(**criteria), seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_file(path: Path, number_format: str) -> None:
    """Refuse a file from which no latency in that number format can be learned, before any work starts."""
    check_extra()
    if is_predictor(path):
        read_predictor(path, number_format=number_format)
        return
    matching = [series for series in read(path).all_series() if series.setting.number_format == number_format]
    most = max((len(series.shapes) for series in matching), default=0)
    if most < FEWEST:
        raise InputError(
            f"{path} holds {plural(most, 'shape')} in {number_format}; at least {FEWEST} are needed to learn from"
        )


def file_problems(path: str | None, number_format: str) -> list[str]:
    """List the problems of a step's ``profile`` field; empty if it names no file or one with enough shapes."""
    if path is None:
        return []
    file = user_path(path)
    try:
        check_file(file, number_format)
    except LimbeckError as error:
        return [f"profile: {error if file.is_file() else missing_file(file)}"]
    return []
