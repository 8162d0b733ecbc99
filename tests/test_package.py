"""What leaves this checkout: the sdist, the wheel, the pins and the text of every file.

The wheel under test is built from the sdist, as a packager would, without isolation and
offline. It is installed in an environment of its own that borrows our dependencies.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Files that are tracked, or would be: relative to the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout to tell the project's files from the rest")
    # The owner of a checkout in a container is often another user.
    listed = run(
        "git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT
    )
    files = (Path(name) for name in sorted(set(listed.split("\0"))) if name)
    return tuple(f for f in files if (ROOT / f).is_file())


def contents(folder: Path) -> dict[str, str]:
    """Each file under a folder and the digest of its bytes."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@dataclass(frozen=True)
class Built:
    """A pristine copy of the project, and what was built from it."""

    source: Path
    sdist: Path
    wheel: Path
    direct_wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    source, out, direct = (tmp_path_factory.mktemp(n) for n in ("source", "out", "direct"))
    for file in project_files():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, source / file)
    build = (sys.executable, "-m", "build", "--no-isolation")
    run(*build, "--outdir", out, cwd=source)  # builds the wheel from the sdist
    run(*build, "--wheel", "--outdir", direct, cwd=source)
    return Built(
        source, *out.glob("raycl-*.tar.gz"), *out.glob("raycl-*.whl"), *direct.glob("raycl-*.whl")
    )


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; the folder of its commands."""
    home = tmp_path_factory.mktemp("env")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", built.wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    # A .pth adds our dependencies after the wheel, and not the checkout itself.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_a_wheel_from_the_sdist_is_the_wheel_from_the_checkout(built: Built) -> None:
    assert wheel_names(built.wheel) == wheel_names(built.direct_wheel)


def test_the_wheel_holds_the_package_and_nothing_beside_it(built: Built) -> None:
    names = wheel_names(built.wheel)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"raycl"}
    assert "raycl/py.typed" in names
    modules = {f.as_posix() for f in project_files() if f.parts[0] == "raycl"}
    assert modules <= set(names)


def test_the_sdist_holds_what_a_test_run_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "constraints.txt", "pyproject.toml", "LICENSE", "tests/test_package.py"}
    assert needed <= names


@pytest.mark.parametrize("name", ["search_spaces", "clusters"])
def test_an_installed_wheel_finds_the_shipped_folders(
    name: str, built: Built, installed: Path, tmp_path: Path
) -> None:
    ask = f"from raycl import shipped; print(shipped.folder({name!r}))"
    folder = Path(run(installed / "python", "-I", "-c", ask, cwd=tmp_path).strip())
    assert folder.is_relative_to(installed.parent)
    assert contents(folder) == contents(built.source / name) != {}


def test_the_installed_command_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "usage" in run(installed / "raycl", "--help", cwd=tmp_path).lower()


def test_the_installed_package_is_typed_and_told_its_version(
    installed: Path, tmp_path: Path
) -> None:
    ask = """
import importlib.metadata, importlib.resources, json, raycl
scripts = importlib.metadata.distribution("raycl").entry_points.select(group="console_scripts")
print(json.dumps({
    "typed": importlib.resources.files("raycl").joinpath("py.typed").is_file(),
    "same_version": importlib.metadata.version("raycl") == raycl.__version__,
    "scripts": {script.name: script.value for script in scripts},
}))
"""
    assert json.loads(run(installed / "python", "-I", "-c", ask, cwd=tmp_path)) == {
        "typed": True,
        "same_version": True,
        "scripts": {"raycl": "raycl.cli.main:main"},
    }


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins == sorted(pins)
    odd = [p for p in pins if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*", p)]
    assert not odd
    # torch pins these itself, by platform.
    assert not [p for p in pins if p.startswith(("nvidia-", "cuda-", "triton"))]


def _foreign() -> dict[str, re.Pattern[str]]:
    """Patterns of what must not be written down, put together so as not to be found here."""
    folders = "|".join(("work", "root", "Users", "home"))
    hosts = "|".join(
        re.escape(".".join(parts))
        for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"),
                      ("conda", "anaconda", "org"), ("pkg", "dev"))
    )  # fmt: skip
    options = "|".join("-".join((word, "url")) for word in ("index", "extra-index"))
    return {
        # After a name or a closing bracket it is the tail of some other path.
        "a path of one machine": re.compile(rf"(?<![\w.}})~$*>-])/(?:{folders})/[\w.]"),
        "a registry host": re.compile(rf"\b(?:{hosts})\b"),
        "a registry option": re.compile(rf"--(?:{options})\b"),
    }


def foreign(text: str) -> list[str]:
    """Each line of a text that holds something of one machine or one registry."""
    return [
        f"{number}: {what}: {line.strip()[:120]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in _foreign().items()
        if pattern.search(line)
    ]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for file in project_files():
        data = (ROOT / file).read_bytes()
        if b"\0" not in data[:8192]:
            found += [f"{file}:{line}" for line in foreign(data.decode("utf-8", "replace"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "parts",
    [
        ('store = "', "/work", '/main/store"'),
        ("", "/root", "/.cache"),
        ("cd ", "/home", "/ann/raycl"),
        ("https://", "pypi", ".org/simple"),
        ("https://files.", "pythonhosted", ".org/x.whl"),
        ("pip install --index", "-url", " https://example.com"),
    ],
    ids="".join,
)
def test_what_is_foreign_is_seen(parts: tuple[str, ...]) -> None:
    assert foreign("fine\n" + "".join(parts))


@pytest.mark.parametrize(
    "text", ["s3://bucket/work/a", "{tmp}/work/a", "~/work/a", "a/root/b", "the root/leaf", "pip"]
)
def test_what_is_not_foreign_is_let_pass(text: str) -> None:
    assert not foreign(text)
