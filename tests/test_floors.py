"""The rules of the house, held on every module by reading its syntax tree.

A module imports only floors strictly below its own; heavy packages come in through a few
named doors; nothing is unpickled. Imports count wherever they stand: in a function, under
TYPE_CHECKING or through `import_module("…")`. What a module does at run time is not seen.
"""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    **dict.fromkeys(("errors", "printable", "redaction", "whole_files"), 0),
    **dict.fromkeys(("shipped",), 1),
    **dict.fromkeys(("config", "observe"), 1),
    **dict.fromkeys(("store", "compute", "drawing"), 2),
    **dict.fromkeys(("streams", "backbones", "generators", "metrics"), 3),
    **dict.fromkeys(("captions", "embedding", "fitting", "replay", "synthesis"), 4),
    "methods": 5,
    "engine": 6,
    **dict.fromkeys(("search", "launch", "report"), 7),
    "cli": 8,
    "__main__": 9,
}
FRONT_DOOR = "raycl/__init__.py"
FIRST_FLOOR_WITH_TORCH = 3
TORCH = ("torch", "torchvision", "safetensors.torch")
TORCH_BELOW = ("raycl/store/codecs.py",)
RAY_DOORS = ("raycl/compute/ray_*.py", "raycl/search/*", "raycl/launch/ray_jobs.py")
HEAVY = (*TORCH, "ray", "pyarrow")

METHOD_PARTS = ("raycl.methods.parts", "raycl.methods.method", "raycl.methods.context")
METHOD_ASSEMBLERS = ("raycl/methods/__init__.py", "raycl/methods/build.py")

LONGEST_FILE = 500
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "misc", "common"}

UNSAFE_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
    "dill.load", "dill.loads", "joblib.load", "pandas.read_pickle", "shelve.open",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load",
}  # fmt: skip
SAFE_ONLY_WITH = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}


@dataclass(frozen=True)
class Module:
    """A source file: where it lies and what it says."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.path)

    @property
    def in_package(self) -> bool:
        return self.path.startswith("raycl/")

    @property
    def top(self) -> str:
        """The name under raycl/ that its floor belongs to."""
        parts = PurePosixPath(self.path).with_suffix("").parts
        return parts[1] if len(parts) > 1 else ""

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """Line and dotted name of all it imports; `from a import b` imports a.b."""
        return [
            (node.lineno, name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.stmt | ast.expr)
            for name in self.imported(node)
        ]

    def imported(self, node: ast.AST) -> list[str]:
        match node:
            case ast.Import(names=names):
                return [alias.name for alias in names]
            case ast.ImportFrom(names=names):
                base = self._absolute(node)
                return [f"{base}.{alias.name}" for alias in names]
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if _is_dynamic(node.func):
                return [name]
        return []

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = PurePosixPath(self.path).parts[: -node.level]
        return ".".join([*package, *([node.module] if node.module else [])])


def _is_dynamic(function: ast.expr) -> bool:
    return ast.unparse(function) in ("importlib.import_module", "import_module", "__import__")


def _is(name: str, *packages: str) -> bool:
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def _at(module: Module, line: int, message: str) -> str:
    return f"{module.path}:{line}: {message}"


def imports_go_down(module: Module) -> Iterator[str]:
    """Only floors strictly below; siblings never import each other."""
    if not module.in_package or module.path == FRONT_DOOR:
        return
    if module.top not in FLOORS:
        yield _at(module, 1, f"{module.top} has no floor; give it one in DESIGN and here")
        return
    for line, name in module.imports:
        if not _is(name, "raycl") or name == "raycl.__version__":
            continue
        target = name.split(".")[1] if "." in name else ""
        if target not in FLOORS:
            yield _at(module, line, f"imports {name}, which is the front door or has no floor")
        elif target != module.top and FLOORS[target] >= FLOORS[module.top]:
            yield _at(
                module, line,
                f"{module.top} (floor {FLOORS[module.top]}) imports {name}"
                f" (floor {FLOORS[target]}); only floors strictly below may be",
            )  # fmt: skip


def heavy_packages_use_their_doors(module: Module) -> Iterator[str]:
    """ray behind its doors, torch from its floor up, neither those nor pyarrow at the bottom."""
    if not module.in_package:
        return
    floor = FLOORS.get(module.top, 0)
    in_codec = module.path in TORCH_BELOW
    for line, name in module.imports:
        if floor <= 1 and _is(name, *HEAVY):
            yield _at(module, line, f"imports {name}; floors 0 and 1 stay light, even lazily")
        elif _is(name, "ray") and not any(fnmatch.fnmatch(module.path, d) for d in RAY_DOORS):
            yield _at(module, line, f"imports {name}; ray belongs to {', '.join(RAY_DOORS)}")
        elif _is(name, *TORCH) and floor < FIRST_FLOOR_WITH_TORCH and not in_codec:
            yield _at(module, line, f"imports {name}; torch begins at floor 3")


def methods_stand_alone(module: Module) -> Iterator[str]:
    """A method imports shared parts and the base, never another method."""
    if module.top != "methods" or not module.in_package or module.path in METHOD_ASSEMBLERS:
        return
    for line, name in module.imports:
        if _is(name, "raycl.methods") and not _is(name, *METHOD_PARTS):
            yield _at(module, line, f"imports {name}; methods share only {METHOD_PARTS}")


def front_door_is_lazy(module: Module) -> Iterator[str]:
    """`import raycl` imports nothing but the standard library."""
    if module.path != FRONT_DOOR:
        return
    for node in _run_on_import(module.tree.body):
        for name in module.imported(node):
            if name.split(".")[0] not in sys.stdlib_module_names:
                yield _at(module, node.lineno, f"imports {name} at import time; use __getattr__")


def _run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        match node:
            case ast.If(test=test) if ast.unparse(test).endswith("TYPE_CHECKING"):
                yield from _run_on_import(node.orelse)
            case ast.If() | ast.Try() | ast.With():
                yield from _run_on_import(
                    [c for c in ast.walk(node) if isinstance(c, ast.stmt)][1:]
                )
            case _:
                yield node


def files_are_short(module: Module) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines > LONGEST_FILE:
        yield _at(module, lines, f"{lines} lines; {LONGEST_FILE} at most, cut it in two")


def names_say_something(module: Module) -> Iterator[str]:
    empty = NAMES_THAT_SAY_NOTHING & set(PurePosixPath(module.path).with_suffix("").parts)
    if empty:
        yield _at(module, 1, f"a name that says nothing: {', '.join(sorted(empty))}")


def public_modules_are_described(module: Module) -> Iterator[str]:
    name = PurePosixPath(module.path).stem
    private = name.startswith("_") and not name.startswith("__")
    words = (ast.get_docstring(module.tree) or "").split()
    if module.in_package and not private and len(words) < 2:
        yield _at(module, 1, "needs a docstring that says what it is")


def nothing_unsafe_is_loaded(module: Module) -> Iterator[str]:
    """No pickle in any disguise, and safe YAML only."""
    if not module.in_package:
        return
    aliases = _aliases(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            name = aliases.get(first, first) + dot + rest
            if name in UNSAFE_CALLS:
                yield _at(module, node.lineno, f"calls {name}, which can run what it reads")
            elif name in SAFE_ONLY_WITH and not _passes(node, *SAFE_ONLY_WITH[name]):
                option, value = SAFE_ONLY_WITH[name]
                yield _at(module, node.lineno, f"calls {name} without {option}={value}")


def _aliases(module: Module) -> dict[str, str]:
    """What a local name stands for: `np` for numpy, `load` for pickle.load."""
    out: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            out |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return out


def _passes(call: ast.Call, option: str, value: bool) -> bool:
    return any(
        k.arg == option and isinstance(k.value, ast.Constant) and k.value.value is value
        for k in call.keywords
    )


Rule = Callable[[Module], Iterator[str]]

RULES: tuple[Rule, ...] = (
    imports_go_down,
    heavy_packages_use_their_doors,
    methods_stand_alone,
    front_door_is_lazy,
    files_are_short,
    names_say_something,
    public_modules_are_described,
    nothing_unsafe_is_loaded,
)


@pytest.fixture(scope="module")
def house() -> list[Module]:
    files = [p for top in ("raycl", "tests", "benchmarks") for p in (ROOT / top).rglob("*.py")]
    modules = [
        Module(p.relative_to(ROOT).as_posix(), p.read_text(encoding="utf-8")) for p in sorted(files)
    ]
    assert any(m.path == FRONT_DOOR for m in modules)
    return modules


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(house: list[Module], rule: Rule) -> None:
    broken = [finding for module in house for finding in rule(module)]
    assert not broken, "\n" + "\n".join(broken)


BROKEN: list[tuple[Rule, str, str]] = [
    (imports_go_down, "raycl/config/a.py", "import raycl.engine.loop"),
    (imports_go_down, "raycl/config/a.py", "from raycl.observe import events"),
    (imports_go_down, "raycl/store/a.py", "from ..compute.pool import Pool"),
    (imports_go_down, "raycl/store/a.py", "from raycl import compute"),
    (imports_go_down, "raycl/store/a.py", "from raycl import run"),
    (imports_go_down, "raycl/store/a.py", "import raycl"),
    (imports_go_down, "raycl/store/a.py", "def f():\n    import raycl.cli.main"),
    (imports_go_down, "raycl/store/a.py", "importlib.import_module('raycl.cli.main')"),
    (imports_go_down, "raycl/store/a.py", "if TYPE_CHECKING:\n    import raycl.engine"),
    (imports_go_down, "raycl/errors.py", "import raycl.shipped"),
    (imports_go_down, "raycl/garden/a.py", ""),
    (heavy_packages_use_their_doors, "raycl/compute/pool.py", "import ray"),
    (heavy_packages_use_their_doors, "raycl/engine/a.py", "from ray import tune"),
    (heavy_packages_use_their_doors, "raycl/launch/render.py", "import ray.job_submission"),
    (heavy_packages_use_their_doors, "raycl/compute/ray_pool.py", "import torch"),
    (heavy_packages_use_their_doors, "raycl/store/local.py", "from safetensors import torch"),
    (heavy_packages_use_their_doors, "raycl/config/a.py", "def f():\n    import pyarrow.fs"),
    (heavy_packages_use_their_doors, "raycl/observe/a.py", "import_module('torch')"),
    (heavy_packages_use_their_doors, "raycl/errors.py", "from torch import nn"),
    (methods_stand_alone, "raycl/methods/rail.py", "from raycl.methods.ranpac import f"),
    (methods_stand_alone, "raycl/methods/rail.py", "from . import ranpac"),
    (methods_stand_alone, "raycl/methods/rail.py", "from raycl.methods import build"),
    (methods_stand_alone, "raycl/methods/parts/ridge.py", "import raycl.methods.rail"),
    (front_door_is_lazy, FRONT_DOOR, "from raycl.errors import RayclError"),
    (front_door_is_lazy, FRONT_DOOR, "try:\n    import torch\nexcept ImportError:\n    pass"),
    (files_are_short, "raycl/store/a.py", "\n" * (LONGEST_FILE + 1)),
    (names_say_something, "raycl/store/utils.py", ""),
    (names_say_something, "tests/helpers/a.py", ""),
    (public_modules_are_described, "raycl/store/a.py", ""),
    (public_modules_are_described, "raycl/store/__init__.py", '"""Store."""'),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "import pickle\npickle.load(f)"),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "from pickle import loads as read\nread(b)"),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "import yaml as y\ny.load(t, y.Loader)"),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "import numpy as np\nnp.load(p)"),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "from numpy import load\nload(p)"),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "import torch\ntorch.load(p)"),
    (nothing_unsafe_is_loaded, "raycl/a.py", "import torch\ntorch.load(p, weights_only=False)"),
]

SOUND: list[tuple[Rule, str, str]] = [
    (imports_go_down, "raycl/engine/a.py", "from raycl.store.local import LocalStore"),
    (imports_go_down, "raycl/engine/a.py", "from raycl.engine.loop import step"),
    (imports_go_down, "raycl/engine/a.py", "from .loop import step"),
    (imports_go_down, "raycl/cli/a.py", "from raycl import __version__"),
    (imports_go_down, "raycl/store/a.py", "import rayclette.cli"),
    (imports_go_down, FRONT_DOOR, "def f():\n    from raycl.cli import main"),
    (heavy_packages_use_their_doors, "raycl/compute/ray_pool.py", "import ray.util"),
    (heavy_packages_use_their_doors, "raycl/search/driver.py", "from ray import tune"),
    (heavy_packages_use_their_doors, "raycl/launch/ray_jobs.py", "import ray"),
    (heavy_packages_use_their_doors, "raycl/store/codecs.py", "import safetensors.torch"),
    (heavy_packages_use_their_doors, "raycl/store/a.py", "import pyarrow"),
    (heavy_packages_use_their_doors, "raycl/streams/a.py", "import torch.nn as nn"),
    (methods_stand_alone, "raycl/methods/rail.py", "from raycl.methods.parts.ridge import f"),
    (methods_stand_alone, "raycl/methods/rail.py", "from .method import Method"),
    (methods_stand_alone, "raycl/methods/build.py", "from raycl.methods.rail import Rail"),
    (front_door_is_lazy, FRONT_DOOR, "import sys\ndef __getattr__(n):\n    import raycl.cli"),
    (front_door_is_lazy, FRONT_DOOR, "if TYPE_CHECKING:\n    from raycl.config import spec"),
    (files_are_short, "raycl/store/a.py", "\n" * LONGEST_FILE),
    (names_say_something, "raycl/store/common_prefix.py", ""),
    (public_modules_are_described, "raycl/store/_lease.py", ""),
    (nothing_unsafe_is_loaded, "raycl/store/a.py", "import yaml\nyaml.safe_load(t)"),
    (nothing_unsafe_is_loaded, "raycl/a.py", "import numpy\nnumpy.load(p, allow_pickle=False)"),
    (nothing_unsafe_is_loaded, "raycl/a.py", "import torch\ntorch.load(p, weights_only=True)"),
    (nothing_unsafe_is_loaded, "raycl/a.py", "import json\njson.load(f)"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "text"), BROKEN)
def test_a_rule_sees_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    findings = list(rule(Module(path, text)))
    assert findings
    assert all(finding.startswith(f"{path}:") for finding in findings)


@pytest.mark.parametrize(("rule", "path", "text"), SOUND)
def test_a_rule_lets_pass_what_is_sound(rule: Rule, path: str, text: str) -> None:
    assert not list(rule(Module(path, text)))
