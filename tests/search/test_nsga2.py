from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import optuna
import pytest

from limbeck.core.pareto import front, hypervolume
from limbeck.core.search_space import Range, Space
from limbeck.cost_models.shape_sampling import everything
from limbeck.errors import InputError, MissingExtra
from limbeck.search import nsga2 as studies
from limbeck.search.evolution import sample_shapes
from limbeck.search.nsga2 import ATTRIBUTE, FrontSearch, open_study

SPACE = Space(Range(1, 2), Range(16, 16), Range(1, 4), Range(16, 64, 16), Range(8, 8), per_layer=True)
BOUND = 300.0
POPULATION = 10


def cost(shape):
    return float(sum(32 * row.heads + row.ffn for row in shape.layers))


def score(shapes):
    """Depth and width help less and less; an odd number of heads in the first layer hurts."""
    sums = [sum(math.sqrt(row.heads) + math.sqrt(row.ffn) / 4 for row in shape.layers) for shape in shapes]
    odd = [0.1 * (shape.layers[0].heads % 2) for shape in shapes]
    return [total / math.sqrt(shape.depth) - less for total, less, shape in zip(sums, odd, shapes, strict=True)]


def price(shape):
    return cost(shape), cost(shape) / BOUND - 1


def search(path, seed=0, alone=True, **settings):
    first = sample_shapes(SPACE, lambda shapes: [cost(shape) <= BOUND for shape in shapes], POPULATION, Random(seed))
    study = open_study(path, "", {"space": "toy", **settings})
    return FrontSearch(study, SPACE, price, first, POPULATION, 0.25, seed, alone)


def run(path, total, scored=None, **options):
    def noting(shapes):
        if scored is not None:
            scored.extend(shapes)
        return score(shapes)

    scores = {}
    for scores in search(path, **options)(noting, total):  # noqa: B007
        pass
    return scores


def points(shapes):
    return list(zip(score(shapes), map(cost, shapes), strict=True))


def members(shapes):
    on_front = front(points(shapes), ("max", "min"))
    return {shape for shape, stays in zip(shapes, on_front, strict=True) if stays}


FITTING = [shape for shape in everything(SPACE) if cost(shape) <= BOUND]


@pytest.mark.parametrize("seed", [0, 1])
def test_half_of_the_judgments_find_the_front(seed):
    """Compared with all shapes judged, and with as many drawn at random."""
    scored = []
    scores = run(None, len(FITTING) // 2, scored, seed=seed)
    assert len(scored) == len(set(scored)) == len(scores) == len(FITTING) // 2 > 100
    assert all(cost(shape) <= BOUND for shape in scored)
    true = members(FITTING)
    assert len(true) > 15
    assert len(true & set(scores)) >= 0.85 * len(true)
    rng = sample_shapes(SPACE, lambda shapes: [cost(shape) <= BOUND for shape in shapes], len(scores), Random(seed + 9))
    assert len(true & set(scores)) > 1.3 * len(true & set(rng))
    volumes = [hypervolume(points(shapes), (0.0, BOUND), ("max", "min")) for shapes in (scores, FITTING)]
    assert volumes[0] >= 0.99 * volumes[1]


def test_when_nothing_new_is_found_it_ends():
    scores = run(None, 10_000)
    assert set(scores) <= set(FITTING)
    assert len(scores) >= 0.85 * len(FITTING)


FINISH = FrontSearch._finish


def untidy(self, number, values=None, state=None):
    """A process that is killed tells nothing of what it leaves."""
    if values is not None or state is not None:
        FINISH(self, number, values, state)


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_it_ends_as_if_it_had_not_been_interrupted(tmp_path, stop):
    """Killed while it judges: nothing can be tidied up, so the trials are left running."""
    whole, remembered = run(tmp_path / "whole.jsonl", 40), {}
    shares = 0

    def killed(shapes):
        nonlocal shares
        shares += 1
        if shares == stop:
            raise KeyboardInterrupt
        remembered.update(zip(shapes, score(shapes), strict=True))
        return score(shapes)

    interrupted = search(tmp_path / "cut.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrontSearch, "_finish", untidy)
        with pytest.raises(KeyboardInterrupt):
            list(interrupted(killed, 40))
    assert any(trial.state.name == "RUNNING" for trial in interrupted.study.trials)
    scored = []
    again = run(tmp_path / "cut.jsonl", 40, scored)
    assert list(again.items()) == list(whole.items())
    assert not set(scored) & set(remembered)


def test_a_share_that_was_told_in_part_is_completed(tmp_path):
    """Killed between two answers: the generation has as many shapes as it would have had."""
    whole = run(tmp_path / "whole.jsonl", 40)
    finished = 0

    def dies(self, number, values=None, state=None):
        nonlocal finished
        finished += values is not None
        if finished > 13:
            raise SystemExit
        FINISH(self, number, values, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrontSearch, "_finish", dies)
        with pytest.raises(SystemExit):
            run(tmp_path / "cut.jsonl", 40)
    assert list(run(tmp_path / "cut.jsonl", 40).items()) == list(whole.items())


JOINING = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from test_nsga2 import run, score, search

    scored, path = [], Path(sys.argv[1])
    def slowly(shapes):
        scored.extend(shapes)
        time.sleep(0.02 * len(shapes))
        return score(shapes)

    *_, scores = search(path, seed=int(sys.argv[2]), alone=False)(slowly, 40)
    print(len(scores), len(scored), *(str(shape).replace(" ", "_") for shape in scored))
"""


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_two_processes_that_join_one_storage_judge_no_shape_twice(tmp_path, seeds):
    """Also with one seed, where both would propose the same."""
    command = [sys.executable, "-c", textwrap.dedent(JOINING), str(tmp_path / "joined.jsonl")]
    here = str(Path(__file__).parent)
    both = [subprocess.Popen([*command, str(seed), here], stdout=subprocess.PIPE, text=True) for seed in seeds]
    answers = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    judged = [shape for answer in answers for shape in answer[2:]]
    assert len(judged) == len(set(judged)) >= 40
    assert {int(answer[0]) for answer in answers} == {len(judged)}
    assert all(int(answer[1]) > 0 for answer in answers)


def test_who_is_lost_leaves_its_shapes_to_others(tmp_path):
    """A process of this machine that is gone; of another machine, after some time; who is still there keeps them."""
    path = tmp_path / "joined.jsonl"
    study = search(path, alone=False).study
    me = studies._owner()
    pid = os.getppid()
    claims = {
        "gone": {"pid": pid, "born": 1.0},
        "far": {"host": "x"},
        "far and long ago": {"host": "x", "asked": 1.0},
        "an earlier search": {},
        "there": {"pid": pid, "born": studies._start_time(pid)},
    }
    numbers = {}
    for name, claim in claims.items():
        trial = study.ask()
        trial.set_user_attr(ATTRIBUTE, {"draw": 0, "shape": SPACE.smallest.to_json(), **me, **claim})
        numbers[trial.number] = name
    running = search(path, alone=False)._running()
    assert [numbers[trial.number] for trial in running] == ["far", "there"]
    assert not search(path)._running()  # alone: nobody else can be


def test_a_shape_that_two_took_is_asked_for_again_when_the_first_is_lost(tmp_path):
    first, second, third = (search(tmp_path / "joined.jsonl", alone=False) for _ in range(3))
    shape = SPACE.smallest
    claim = {"draw": 0, "generation": 0, "shape": shape.to_json()}
    number = first._start(claim, 0.0)
    assert second._start(claim, 0.0) is None
    assert shape not in [proposal.shape for proposal in replace(second, first=[shape])._propose(3)]
    first._finish(number)
    assert shape in [proposal.shape for proposal in replace(third, first=[shape])._propose(3)]


def test_who_waits_judges_what_a_lost_process_gives_back(tmp_path, monkeypatch):
    """Also when no other shape was left to ask for."""
    few = Space(Range(1, 1), Range(16, 16), Range(1, 2), Range(16, 16), Range(8, 8))
    own, other = (replace(search(tmp_path / "joined.jsonl", alone=False), space=few, first=[]) for _ in range(2))
    pid = os.getppid()
    monkeypatch.setattr(
        studies, "_owner", lambda: {"host": "elsewhere", "pid": pid, "born": None, "asked": time.time()}
    )
    number = other._start({"draw": 0, "generation": 0, "shape": few.largest.to_json()}, 0.0)
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: FINISH(other, number))
    *_, scores = own(score, 10)
    assert set(scores) == {few.smallest, few.largest}


def test_resumed_it_gives_up_when_it_would_have(tmp_path):
    """Generations of which nothing fits count, also those before an interruption."""

    def tries(path, shares=None):
        none_fits = replace(search(path), price=lambda shape: (cost(shape), 1.0))
        for number, _ in enumerate(none_fits(score, 40), start=1):
            if number == shares:
                break
        return len(none_fits.study.trials)

    assert tries(tmp_path / "whole.jsonl") == studies.MAX_EMPTY_GENERATIONS * POPULATION
    assert tries(tmp_path / "cut.jsonl", 3) == 3 * POPULATION
    assert tries(tmp_path / "cut.jsonl") == studies.MAX_EMPTY_GENERATIONS * POPULATION


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_a_study_of_another_program_is_refused(tmp_path, directions):
    study = optuna.create_study(
        storage=studies._open_storage(tmp_path / "study.jsonl"), study_name="mine", directions=directions
    )
    study.add_trial(optuna.trial.create_trial(values=[1.0] * len(directions)))
    with pytest.raises(InputError, match=r"study_name: 'mine' in .* is not a limbeck search; give another name"):
        open_study(tmp_path / "study.jsonl", "mine", {"space": "a"})


def test_what_is_stored_is_text(tmp_path):
    run(tmp_path / "study.jsonl", 12)
    lines = [json.loads(line) for line in (tmp_path / "study.jsonl").read_text().splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"study.jsonl"}


def test_a_database_serves_too(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    scores = run(url, 12, alone=False)
    assert len(scores) >= 12
    scored = []
    assert run(url, 12, scored, alone=False) == scores
    assert not scored


def test_a_study_of_something_else_is_refused(tmp_path):
    path = tmp_path / "study.jsonl"
    open_study(path, "mine", {"space": "a", "metric": "accuracy"})
    open_study(path, "mine", {"space": "a", "metric": "accuracy"})
    with pytest.raises(InputError, match=r"'mine' in .* different metric \(accuracy, here f1\); give another name"):
        open_study(path, "mine", {"space": "a", "metric": "f1"})
    assert open_study(path, "", {"space": "b"}).study_name != open_study(path, "", {"space": "a"}).study_name
    (tmp_path / "text").write_text("no journal\nat all\n")
    for other in (tmp_path / "text", "nothing://here", tmp_path):
        with pytest.raises(InputError, match="cannot be opened as the storage of a search"):
            open_study(other, "", {"space": "a"})


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "limbeck.search.nsga2")
    with pytest.raises(MissingExtra, match=r"pip install 'limbeck\[search\]'"):
        __import__("limbeck.search.nsga2")
