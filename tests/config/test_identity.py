"""Keys: stable across machines and releases, blind to execution, alive to meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycl.config.backbones import Backbone
from raycl.config.execution import Execution
from raycl.config.experiment import Experiment
from raycl.config.loading import load
from raycl.config.methods import BUILT_IN, NCM, SLDA, Align, Finetune, Joint, UserMethod, kind_of
from raycl.config.seeds import rng, seed_for
from raycl.config.spec import Spec, as_json, canonical, described, digest, identity
from raycl.config.streams import (
    IMAGE_STREAMS,
    STREAMS,
    DigitsStream,
    EmbeddingsStream,
    FolderStream,
    GlyphsStream,
    HubStream,
    NamedStream,
    Validation,
)
from raycl.engine.identity import LOOP_REVISION, METRICS_REVISION, RunIdentity

FROZEN = Path(__file__).parent / "frozen_defaults.json"
GOLDEN = {
    "slda": "result/slda-digits-seed0/e73326dc7cb8c3d46d4bafd40d430e8c",
    "finetune": "result/finetune-digits-seed1992/eaa0aea16f222254a57b1a81c72b9905",
}


def identity_of(**changes: Any) -> RunIdentity:
    fields = {"method": SLDA(), "stream": DigitsStream(), **changes}
    return RunIdentity(Experiment(**fields).resolved(), contents=("0" * 32,))


def key(**changes: Any) -> str:
    return identity_of(**changes).result.key


def test_keys_are_the_same_as_ever() -> None:
    found = {
        "slda": key(),
        "finetune": key(method=Finetune(loss="local", align=Align(lr=0.01)), seed=1992),
    }
    assert found == GOLDEN


@pytest.mark.parametrize(
    "execution",
    [
        {"store": "elsewhere"},
        {"pool": "ray", "workers": 7},
        {"device": "cpu"},
        {"pool": "ray", "address": "10.0.0.1:6379", "learner": {"cpus": 4, "gpus": 1}},
        {"stop_after": 2},
    ],
)
def test_execution_moves_no_key(execution: dict[str, Any]) -> None:
    tree = {"method": {"kind": "slda"}, "stream": {"kind": "digits"}}
    plain, elsewhere = load([tree]), load([tree, {"execution": execution}])
    assert plain.execution != elsewhere.execution
    assert (
        RunIdentity.of(plain.experiment).result.key
        == RunIdentity.of(elsewhere.experiment).result.key
    )
    assert not set(Execution.model_fields) & set(Experiment.model_fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": NCM()},
        {"method": SLDA(shrinkage=0.2)},
        {"method": SLDA(unseen="gate")},
        {"stream": DigitsStream(tasks=2)},
        {"stream": DigitsStream(shots=4)},
        {"stream": DigitsStream(order_seed=3)},
        {"stream": EmbeddingsStream(paths=("x.npz",))},
        {"stream": GlyphsStream()},
        {"stream": FolderStream(paths=("x",))},
        {"stream": FolderStream(paths=("x",), corrupt="skip")},
        {"stream": FolderStream(paths=("x",), test_fraction=0.5)},
        {"stream": HubStream(paths=("x/y",))},
        {"stream": HubStream(paths=("x/y",), label="fine")},
        {"stream": NamedStream(names=("dtd",))},
        {"stream": NamedStream(names=("cars",))},
        {"stream": NamedStream(names=("cars",), own_val="train")},
        {"stream": DigitsStream(increments=(4, 2))},
        {"stream": DigitsStream(order="pycil")},
        {"backbone": Backbone(logit_scale=50.0)},
        {"backbone": Backbone(precision="bf16")},
        {"backbone": Backbone(batch=32)},
        {"backbone": Backbone(template="{}")},
        {"validation": Validation(refit=False)},
        {"init_seed": 5},
        {"seed": 1},
    ],
    ids=str,
)
def test_every_meaning_has_a_key_of_its_own(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_a_seed_written_out_is_the_same_seed() -> None:
    assert key(seed=7) == key(
        seed=0,
        init_seed=7,
        stream=DigitsStream(order_seed=7, shot_seed=7),
        validation=Validation(seed=7),
    )


def test_a_backbones_name_is_not_meaning_and_its_weights_are() -> None:
    assert key(backbone=Backbone(name="local-dir:/elsewhere")) == key()
    one, other = (
        RunIdentity(identity_of().experiment, ("0" * 32,), weights=(digit * 32,)).result.key
        for digit in "12"
    )
    assert len({one, other, key()}) == 3


def made(spec: type[Spec]) -> Any:
    """One of a kind, with what it must be told."""
    needed = {"paths": ("x",), "names": ("dtd",)}
    return spec(**{name: value for name, value in needed.items() if name in spec.model_fields})


@pytest.mark.parametrize("stream", IMAGE_STREAMS, ids=kind_of)
def test_images_are_embedded_by_tiny_clip_unless_told_otherwise(stream: type[Spec]) -> None:
    spec = made(stream)
    assert Experiment(method=SLDA(), stream=spec).backbone_name == "tiny-clip"


def test_paths_are_not_meaning_and_contents_are() -> None:
    here, there = (EmbeddingsStream(paths=(p,)) for p in ("a.npz", "/elsewhere/b.npz"))
    assert key(stream=here) == key(stream=there)
    near, far = (FolderStream(paths=(p,)) for p in ("a", "/elsewhere/b"))
    assert key(stream=near) == key(stream=far)
    other = RunIdentity(Experiment(method=SLDA(), stream=here).resolved(), contents=("1" * 32,))
    assert other.result.key != key(stream=here)


def test_the_source_of_a_user_method_is_meaning(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    experiment = Experiment(method=UserMethod(target=str(file)), stream=DigitsStream())
    file.write_text("a = 1\n")
    first = RunIdentity.of(experiment).result.key
    file.rename(tmp_path / "moved.py")
    moved = Experiment(method=UserMethod(target=str(tmp_path / "moved.py")), stream=DigitsStream())
    assert RunIdentity.of(moved).result.key == first
    (tmp_path / "moved.py").write_text("a = 2\n")
    assert RunIdentity.of(moved).result.key != first


def test_two_members_of_a_union_never_share_a_key() -> None:
    for specs in (BUILT_IN, STREAMS):
        built = [made(spec) for spec in specs]
        keys = [canonical(identity(spec)) for spec in built]
        assert len(set(keys)) == len(keys)
        assert all(identity(spec)["kind"] == kind_of(type(spec)) for spec in built)


def test_defaults_stay_out_and_the_revision_stays_in() -> None:
    assert identity(Joint()) == {"kind": "joint", "revision": 1}
    assert identity(Joint(align=Align(lr=0.5))) == {
        "kind": "joint",
        "revision": 1,
        "align": {"revision": 1, "lr": 0.5},
    }


def test_a_changed_default_comes_with_a_raised_revision() -> None:
    """If this fails you changed a default: raise that spec's `revision`, then run
    `python tests/config/freeze_defaults.py` to write the new state down."""
    from tests.config.freeze_defaults import current

    frozen, now = json.loads(FROZEN.read_text()), current()
    for name, was in frozen.items():
        assert name in now, f"{name} is gone: remove it from {FROZEN.name}"
        changed = {f for f, v in was["defaults"].items() if now[name]["defaults"].get(f, v) != v}
        raised = now[name]["revision"] > was["revision"]
        assert not changed or raised, f"{name}: the default of {changed} changed"
    assert now == frozen, "write the new specs down: python tests/config/freeze_defaults.py"
    assert (LOOP_REVISION, METRICS_REVISION) == (1, 1)


def test_a_changed_default_would_be_seen() -> None:
    class Before(Spec):
        rate: float = 0.1

    class After(Spec):
        rate: float = 0.2

    class Raised(Spec):
        revision = 2
        rate: float = 0.2

    assert identity(Before()) == identity(After()), "the danger that the frozen file guards"
    assert identity(Raised()) != identity(Before())
    assert described(Before()) != described(After()), "what a hit is compared by"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_canonical_json_reads_back_and_digests_once(value: Any) -> None:
    text = canonical(value)
    assert text.isascii()
    assert json.loads(text) == as_json(value)
    assert digest(json.loads(text)) == digest(value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", object(), Path("a"), 1j],
    ids=lambda value: type(value).__name__,
)
def test_what_a_key_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical({"x": [value]})


def test_random_streams_are_named_by_purpose() -> None:
    assert seed_for(0, "batches", 1, 2) == 4226347442340439843
    assert len({seed_for(0, "a"), seed_for(1, "a"), seed_for(0, "b"), seed_for(0, "a", 0)}) == 4
    assert rng(3, "x").integers(1 << 40) == rng(3, "x").integers(1 << 40)
