"""Where candidates are made, from options and a settings file."""

from __future__ import annotations

import pytest

from limbeck.cli.machines import ExecutorOptions, Machines
from limbeck.distributed.config import ExecutorConfig
from limbeck.errors import InputError


def test_options_win_over_the_settings_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("executor: {executor: ray, workers: 8, address: 'head:6379', threads: 4}\n")
    assert Machines().config() == ExecutorConfig()
    assert Machines("processes", 2).config() == ExecutorConfig("processes", 2)
    from_file = ExecutorConfig("ray", 8, 4, "head:6379")
    assert Machines(settings=file).config() == from_file
    assert Machines(workers=3, settings=file).config() == ExecutorConfig("ray", 3, 4, "head:6379")


def test_the_workers_of_a_step_are_processes_of_its_own_or_those_of_the_executor(tmp_path):
    assert ExecutorOptions().config(4) == ExecutorConfig()
    assert ExecutorOptions("processes").config(4) == ExecutorConfig("processes", 4)
    (tmp_path / "settings.yaml").write_text("executor: {executor: ray, workers: 8}\n")
    assert ExecutorOptions(settings=tmp_path / "settings.yaml").config(None) == ExecutorConfig("ray", 8)
    assert ExecutorOptions(settings=tmp_path / "settings.yaml").config(2) == ExecutorConfig("ray", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("executor: {executor: ray, adress: here}", "executor.adress no field called 'adress'; did you mean 'address'"),
        ("executor: {workers: 0}", r"executor\.workers"),
        ("executor: {executor: rai}", r"executor\.executor"),
        ("executors: {}", "has no section 'executor'"),
        ("executor: {}\nstore: here", "there is no section 'store'"),
        ("[1, 2]", "has no section 'executor'"),
        ("executor: [", "settings"),
    ],
)
def test_bad_settings_are_one_error(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        Machines(settings=file).config()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none\\.yaml"):
        Machines(settings=tmp_path / "none.yaml").config()


def test_workers_need_an_executor_that_has_them():
    with pytest.raises(InputError, match="choose 'processes', 'ray' or 'slurm'"):
        Machines(workers=4).config()
