"""The command line: exit codes, JSON, and messages that say what, what was got, what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raycl.cli.main import code_of
from tests.streams.made_sets import arrays, save_npz


class Answer:
    """What a command printed and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out.strip().splitlines()[-1])


class Shell:
    """The command line in this process, with a store and a data set of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.data = save_npz(folder / "set.npz", arrays())

    def __call__(self, *args: str) -> Answer:
        code = code_of(args)
        printed = self._capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    def run(self, method: str = "slda", *args: str) -> Answer:
        return self("run", method, "--stream", f"embeddings:{self.data}", "--json", *args)


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.setenv("RAYCL_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


def test_run_prints_one_object_with_every_promised_name(shell: Shell) -> None:
    answer = shell.run("slda", "--set", "stream.tasks=3")
    assert answer.code == 0
    promised = (
        "method stream backbone seeds protocol tasks r_seen r_union zero_shot metrics why_null "
        "state_mib seconds computed reused key"
    )
    assert set(promised.split()) <= set(answer.json)
    assert len(answer.json["r_seen"]) == len(answer.json["r_union"]) == 3
    assert answer.json["r_seen"][0][1] is None
    assert answer.json["computed"] == {"predictions": 4, "result": 1, "state": 3}
    again = shell.run("slda", "--set", "stream.tasks=3")
    assert again.json["computed"] == {} and again.json["reused"] == {"result": 1}


def test_run_for_people_shows_matrix_and_key(shell: Shell) -> None:
    answer = shell("run", "ncm", "--stream", "digits", "--set", "stream.tasks=2")
    assert answer.code == 0
    listed = shell("store", "ls", "result").out
    assert "ncm" in listed and answer.out.split("seed0/")[1][:8] in listed
    assert "ncm on digits" in answer.out and "result/ncm-digits-seed0/" in answer.out


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["run", "slad", "--stream", "digits"], ["unknown method 'slad'", "'slda'"]),
        (["run", "ncm", "--stream", "digit"], ["unknown stream 'digit'", "'digits'"]),
        (["run", "ncm"], ["no stream is named"]),
        (
            ["run", "ncm", "--stream", "digits", "--set", "method.unsen=gate"],
            ["'method.unsen'", "'unseen'"],
        ),
        (["run", "ncm", "--stream", "digits", "--set", "stream.tasks=x"], ["stream.tasks", "'x'"]),
        (
            ["run", "ncm", "--stream", "digits", "--set", "stream.tasks=11"],
            ["more tasks than classes", "11 for 10 classes", "10 or fewer"],
        ),
        (["run", "ncm", "--stream", "embeddings:no.npz"], ["no such data file", "no.npz"]),
        (["run", "ncm", "--stream", "embeddings:set.csv"], ["no such data file"]),
        (["run", "ncm", "--stream", "embeddings:" + "no.npz+" * 50], ["no such data file"]),
        (
            ["run", "ncm", "--stream", "embeddings:~nosuchuser/x.npz"],
            ["no such data file", "~nosuchuser"],
        ),
        (["synth", "--prompts", "x" * 300, "--out", "o"], ["no such file of prompts"]),
        (["methods", "--check", "~nosuchuser/mine.py"], ["cannot be read", "~nosuchuser"]),
        (["run", "ncm", "--stream", "digits", "--config", "no.yaml"], ["no such file", "no.yaml"]),
        (["run", "ncm", "--stream", "digits", "--config", "lap"], ["no shipped file", "laptop"]),
        (["run", "./no.py", "--stream", "digits"], ["method file cannot be read", "no.py"]),
        (["run", "ncm", "--stream", "digits", "--store", "set.npz"], ["set.npz"]),
        (["run", "ncm", "--stream", "digits", "--store", "s4://x"], ["s4://", "s3://"]),
        (["run", "ncm", "--stream", "digits", "--workers", "2"], ["--pool ray"]),
        (["run", "ncm", "--stream", "digits", "--pool", "rya"], ["rya"]),
        (["rnu"], ["no command 'rnu'", "did you mean 'run'"]),
        (["compare", "abcd", "efgh"], ["no store here"]),
        (["report"], ["no store here", "--store"]),
        (["store", "show", "nothing"], ["no store here"]),
        (["store", "gc", "--older-than", "week", "--store", "."], ["not a duration", "7d"]),
        (["methods", "--check", "slda"], ["name a file of your own"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_bad_input_exits_2_and_says_what_to_do(
    shell: Shell, args: list[str], parts: list[str]
) -> None:
    answer = shell(*args)
    assert answer.code == 2
    assert [part for part in parts if part not in answer.err] == []
    assert "Traceback" not in answer.err and answer.out == ""


def test_a_stopped_run_exits_75_and_continues(shell: Shell) -> None:
    options = ("--set", "stream.tasks=3", "--stop-after", "1")
    answer = shell.run("ncm", *options)
    assert answer.code == 75 and answer.out == ""
    assert "after task 1 of 3" in answer.err and "same command again" in answer.err
    assert shell.run("ncm", *options[:2]).json["computed"]["state"] == 2


def test_compare_is_paired_and_signed(shell: Shell) -> None:
    save_npz(shell.data, arrays(noise=1.5))
    a, b = (shell.run(m, "--set", "stream.tasks=3").json["key"] for m in ("finetune", "slda"))
    answer = shell("compare", a, b.rsplit("/")[-1][:8], "--json", "--draws", "500")
    assert answer.code == 0
    last = answer.json["metrics"]["last_pooled"]
    assert last["b"] > last["a"] and last["difference"] == pytest.approx(last["b"] - last["a"])
    assert last["low"] <= last["difference"] <= last["high"]
    assert "only B right" in shell("compare", a, b, "--draws", "500").out


def test_runs_on_other_data_are_not_compared(shell: Shell) -> None:
    a = shell.run("ncm").json["key"]
    save_npz(shell.data, arrays(seed=9, test=4))
    b = shell.run("ncm").json["key"]
    assert shell("compare", a, b).code == 2
    others = arrays() | {"classnames": np.array([f"animal {c}" for c in range(6)])}
    save_npz(shell.data, others)
    c = shell.run("ncm").json["key"]
    refused = shell("compare", a, c)
    assert refused.code == 2 and "other classes" in refused.err


@pytest.mark.parametrize("suffix", ["md", "csv", "parquet", "txt"])
def test_report_writes_what_the_name_says(shell: Shell, suffix: str) -> None:
    for seed in ("0", "1"):
        shell.run("slda", "--seed", seed)
    answer = shell("report", "--out", f"board.{suffix}")
    if suffix == "txt":
        assert answer.code == 2 and ".md, .csv, .parquet" in answer.err
        return
    assert answer.code == 0 and (shell.folder / f"board.{suffix}").stat().st_size > 0
    assert "slda" in shell("report").out


def test_store_commands_tell_one_story(shell: Shell) -> None:
    key = shell.run("ncm", "--set", "stream.tasks=2").json["key"]
    listed = shell("store", "ls", "result", "--json")
    assert json.loads(listed.out)["key"] == key
    assert json.loads(shell("store", "show", key).out)["kind"] == "result"
    assert shell("store", "verify").code == 0
    first_state = json.loads(shell("store", "ls", "state", "--json").out.splitlines()[0])["key"]
    assert first_state in shell("store", "gc", "--older-than", "0s").out
    shell("store", "pin", first_state, "--why", "a test")
    assert shell("store", "pins").out.split() == [first_state, "a", "test"]
    assert shell("store", "discard", first_state).code == 2, "pinned"
    assert first_state not in shell("store", "gc", "--older-than", "0s", "--delete").out
    shell("store", "unpin", first_state)
    assert first_state in shell("store", "gc", "--older-than", "0s", "--delete").out
    payload = next((shell.folder / "store" / "artefacts" / key).glob("*splits.parquet"))
    payload.write_bytes(b"x" + payload.read_bytes()[1:])
    damaged = shell("store", "verify")
    assert damaged.code == 1 and payload.name in damaged.out
    assert shell("store", "discard", f"bogus/{key}").code == 2
    assert shell("store", "discard", "").code == 2
    assert shell("store", "discard", key).code == 0
    assert shell("store", "ls", "result", "--json").out == ""


def test_configs_from_files_and_flags_merge(shell: Shell) -> None:
    (shell.folder / "mine.yaml").write_text(
        "method: {kind: slda, shrinkage: 0.5}\nstream: {kind: digits, tasks: 2}\nseed: 4\n"
    )
    answer = shell("run", "--config", "mine.yaml", "--set", "method.shrinkage=0.3", "--json")
    assert answer.code == 0
    assert answer.json["label"] == "slda(shrinkage=0.3)" and answer.json["seeds"]["order"] == 4


def test_the_order_of_settings_does_not_matter(shell: Shell) -> None:
    pair = ("--set", "stream.tasks=2", "--set", "stream.kind=digits")
    for settings in (pair, (*pair[2:], *pair[:2])):
        answer = shell("run", "ncm", *settings, "--json")
        assert answer.code == 0 and len(answer.json["tasks"]) == 2


def test_reading_commands_make_no_store(shell: Shell) -> None:
    for command in (["report"], ["store", "ls"], ["compare", "a", "b"]):
        assert shell(*command, "--store", "typo").code == 2
    assert not (shell.folder / "typo").exists()


def test_methods_lists_and_checks(shell: Shell) -> None:
    assert "proto_fusion" in shell("methods").out
    (shell.folder / "bad.py").write_text(
        "from raycl import Method\n"
        "class Bad(Method):\n"
        "    def learn(self, task, context): pass\n"
        "    def seen_scores(self, x): return x\n"
        "    def state(self): return {}\n"
        "    def restore(self, state): pass\n"
    )
    answer = shell("methods", "--check", "bad.py")
    assert answer.code == 1 and "FAIL" in answer.out


def test_doctor_says_what_it_found(shell: Shell) -> None:
    answer = shell("doctor", "--no-ray")
    assert answer.code == 0 and "store" in answer.out
    broken = shell("doctor", "--no-ray", "--store", str(shell.data))
    assert broken.code == 1 and "FAIL" in broken.out and "→" in broken.out
