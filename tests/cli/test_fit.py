"""`raycl fit` and `fit_generators`: what people use who use nothing else."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raycl.config.execution import Execution
from raycl.config.generators import GaussianGenerator, GMMGenerator
from raycl.engine.fitting import fit_generators, generator_of
from raycl.errors import ConfigError
from raycl.fitting.export import read_bank
from raycl.observe.events import Event, Progress
from raycl.store.store import Store
from tests.cli.test_commands import Shell
from tests.cli.test_commands import shell as shell
from tests.engine.processes import Command
from tests.fitting.made_fits import made_vectors, record_bytes, tensor_digests
from tests.streams.made_sets import arrays, save_npz

QUICK = ("--set", "epochs=3", "--set", "hidden=8", "--set", "latent=4")


def fit(shell: Shell, *args: str) -> Any:
    return shell("fit", "--embeddings", str(shell.data), *args)


def test_fit_json_says_what_was_computed_and_where_it_is(shell: Shell) -> None:
    answer = fit(shell, *QUICK, "--out", "bank", "--json")
    assert answer.code == 0 and len(answer.out.splitlines()) == 1
    assert answer.json["classes"] == 6 and answer.json["computed"] == {"generator": 6}
    assert answer.json["reused"] == {} and answer.json["seconds"] > 0
    assert answer.json["out"] == str(shell.folder / "bank")
    bank = read_bank(shell.folder / "bank")
    assert len(bank.bank) == 6 and bank.generator.epochs == 3  # type: ignore[union-attr]
    assert torch.isfinite(bank.bank.sample(5, bank.streams)).all()
    again = fit(shell, *QUICK, "--json").json
    assert (again["computed"], again["reused"], again["out"]) == ({}, {"generator": 6}, None)


def test_fit_for_people_is_a_table(shell: Shell) -> None:
    answer = fit(shell, "--generator", "gaussian:full", "--out", "bank")
    assert answer.code == 0
    for part in ("dispersion", "mean error", "KiB", "6 fitted, 0 found", "gaussian", "bank"):
        assert part in answer.out
    assert "0 fitted, 6 found" in fit(shell, "--generator", "gaussian:full").out


def test_more_classes_fit_only_those_that_are_new(shell: Shell) -> None:
    names = [str(name) for name in arrays()["classnames"]]
    part = [word for name in (names[4], names[1]) for word in ("--classes", name)]
    first = fit(shell, "--generator", "gmm:2", *part, "--json", "--out", "part").json
    assert first["classes"] == 2 and read_bank("part").names == (names[4], names[1])
    rest = fit(shell, "--generator", "gmm:2", "--json").json
    assert (rest["computed"], rest["reused"]) == ({"generator": 4}, {"generator": 2})
    other = fit(shell, "--generator", "gmm:2", "--seed", "1", "--json").json
    assert other["computed"] == {"generator": 6}


def test_joined_files_keep_their_classes_apart(shell: Shell) -> None:
    other = save_npz(shell.folder / "other.npz", arrays(seed=3))
    both = f"{shell.data}+{other}"
    answer = shell("fit", "--embeddings", both, "--generator", "mean", "--json", "--out", "both")
    assert answer.json["classes"] == 12 and answer.json["computed"] == {"generator": 12}
    assert {name.split("/")[0] for name in read_bank("both").names} == {"set", "other"}


def test_a_class_without_vectors_is_left_out_and_told(shell: Shell) -> None:
    given = arrays()
    keep = given["train_y"] != 2
    save_npz(
        shell.data, given | {"train_x": given["train_x"][keep], "train_y": given["train_y"][keep]}
    )
    answer = fit(shell, "--generator", "mean", "--json")
    assert answer.json["classes"] == 5 and "have no training sample" in answer.err


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--generator", "vea"], ["unknown generator 'vea'", "did you mean 'vae'"]),
        (["--generator", "gmm:x"], ["whole number"]),
        (["--generator", "vae:3"], ["takes nothing after a colon"]),
        (["--set", "epohcs=3"], ["'epohcs'", "did you mean 'epochs'"]),
        (["--set", "epochs=0"], ["epochs cannot be used", "got 0"]),
        (["--set", "execution.wrokers=2"], ["did you mean 'workers'"]),
        (["--classes", "dgo"], ["no class is named 'dgo'"]),
        (["--workers", "2"], ["add --pool ray"]),
        (["--out", "no/such"], ["no such folder"]),
        (["--out", "set.npz"], ["--out is a folder"]),
        (["--seed", "-1"], ["--seed"]),
        (["--embeddings", "nowhere.npz"], ["no such data file"]),
        (["--embeddings", "plain.npz"], ["lacks train_x"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_exits_2_and_says_what_to_do(
    shell: Shell, args: list[str], parts: list[str]
) -> None:
    np.savez(shell.folder / "plain.npz", x=np.ones((3, 4)), y=np.arange(3))
    answer = fit(shell, *args)
    assert answer.code == 2, answer.err
    assert [part for part in parts if part not in answer.err] == [], answer.err
    assert "Traceback" not in answer.err and answer.out == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_stopped_fit_goes_on(tmp_path: Path, number: int, code: int) -> None:
    save_npz(tmp_path / "set.npz", arrays())
    asked = [
        "fit",
        "--embeddings",
        "set.npz",
        "--set",
        "epochs=400",
        "--set",
        "hidden=64",
        "--json",
    ]
    first = Command(*asked, "--store", "store", folder=tmp_path)
    while not record_bytes(tmp_path / "store"):
        assert first.process.poll() is None, first.log.read_text()
        time.sleep(0.01)
    first.kill(number)
    assert first.end() == (code, "")
    assert code < 0 or "same command again" in first.log.read_text()
    done = len(record_bytes(tmp_path / "store"))
    again = Command(*asked, "--store", "store", folder=tmp_path).result()
    assert 0 < done < 6 and again["reused"] == {"generator": done}
    Command(*asked, "--store", "whole", folder=tmp_path).result()
    assert tensor_digests(tmp_path / "store") == tensor_digests(tmp_path / "whole")


@pytest.mark.ray
def test_fit_in_ray_gives_the_same_bits(shell: Shell) -> None:
    fit(shell, *QUICK, "--store", "here")
    place = ("--pool", "ray", "--workers", "2", "--store", "there")
    answer = fit(shell, *QUICK, *place, "--out", "bank", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["computed"] == {"generator": 6}
    assert tensor_digests(shell.folder / "here") == tensor_digests(shell.folder / "there")
    assert json.loads((shell.folder / "bank/classes.json").read_text())["classes"]


def test_the_function_takes_names_and_arrays(tmp_path: Path) -> None:
    events: list[Event] = []
    place = Execution(store=str(tmp_path / "store"))
    found = fit_generators(made_vectors(), "gaussian:full", place, events.append)
    assert found.generator == GaussianGenerator(covariance="full") and found.computed == 8
    assert found.bank.sample(7, found.streams).shape == (8, 7, 12)
    assert any(isinstance(e, Progress) for e in events)
    assert len(list(Store.open(place.store).records("generator"))) == 8
    again = fit_generators(made_vectors(), found.generator, place)
    assert (again.computed, again.reused) == (0, 8)


@pytest.mark.ray
def test_the_function_sends_vectors_to_ray(tmp_path: Path) -> None:
    here = fit_generators(made_vectors(), "gmm:3", Execution(store=str(tmp_path / "a")))
    place = Execution(store=str(tmp_path / "b"), pool="ray", workers=2)
    there = fit_generators(made_vectors(), "gmm:3", place)
    assert there.computed == 8
    for name, tensor in here.bank.state_dict().items():
        assert torch.equal(there.bank.state_dict()[name], tensor)


def test_what_a_user_writes_for_a_generator() -> None:
    assert generator_of("gmm:8", [{"tolerance": 0.01}]) == GMMGenerator(
        components=8, tolerance=0.01
    )
    with pytest.raises(ConfigError, match="unknown generator 'gna'"):
        generator_of("gna")
