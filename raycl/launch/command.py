"""A raycl command that is to run elsewhere: its arguments, the files it names, what it asks.

Guarantees: files that say what to do (`--config`, a search space, a method of your own) are
read here and travel, under numbered names, so the same command means the same elsewhere;
what the user asked of the execution is known, so that a profile never overrides it.
Does not look at data: that stays where it is (see `reach`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raycl import shipped
from raycl.config.clusters import execution_part
from raycl.config.execution import Execution
from raycl.config.loading import Tree, check, load, merge, parse_setting, read_file
from raycl.config.methods import parse_method
from raycl.config.places import at_home, is_file
from raycl.config.spec import Spec
from raycl.config.streams import parse_probe, parse_stream
from raycl.errors import ConfigError

REQUIREMENTS = "requirements.txt"
LARGEST_FILE = 512 * 1024
_OFFLINE = ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_PLACE = ("store", "pool", "address", "workers")
_SPACES = (".yaml", ".yml", ".json")
"""A space without one of these is a shipped one, which the nodes have too."""
_PATHS = ("--out", "--html", "--latex", "--prompts", "--images", "--captions")
"""Options whose value is a path of data or of an answer."""


@dataclass(frozen=True)
class Command:
    """Arguments after `raycl`, with the files that they name beside them."""

    args: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path, as in the arguments, to text."""
    asked: Tree = field(default_factory=dict)
    """What the command's options and config files say, merged: stream, execution, …"""
    paths: tuple[tuple[str, str], ...] = ()
    """Other places that the command reads or writes: the option, and the path."""
    options: frozenset[str] = frozenset()
    """What options the subcommand has."""
    as_written: tuple[str, ...] = ()
    """The arguments with the names of files as they are on this machine."""
    offline: Mapping[str, str] = field(default_factory=dict)
    """What says here that no hub is to be asked, which the nodes keep to."""

    @property
    def subcommand(self) -> str:
        return self.args[0]


@dataclass(frozen=True)
class _Part:
    """One option with its value, a flag, or a positional argument."""

    option: str | None
    value: str | None


def gather(args: Sequence[str], options: Mapping[str, bool]) -> Command:
    """The command with its files read. `options`: which there are, and which take a value."""
    if args and args[0] == "raycl":
        args = args[1:]
    if not args:
        raise ConfigError("no command to send", do="write it last: -- run slda --stream digits")
    gathered = _Gathering(args[0])
    for part in _parts(args[1:], options):
        gathered.take(part)
    # The order in which `raycl run` itself applies them.
    asked = merge([*gathered.configs, gathered.flags, *gathered.settings])
    if not isinstance(asked.get("execution", {}), Mapping):
        raise ConfigError(
            "execution holds options", got=repr(asked["execution"]), do="e.g. execution.workers=4"
        )
    return Command(
        args=(args[0], *gathered.args),
        files=gathered.files,
        asked=asked,
        paths=tuple(gathered.paths),
        options=frozenset(options),
        as_written=tuple(args),
    )


class _Asked(Spec):
    """What every command may set."""

    execution: Execution = Execution()


def refuse_mistakes(command: Command) -> None:
    """What the command itself would refuse: told here, and not by a job an hour later."""
    check(_Asked, {"execution": command.asked.get("execution", {})})
    if command.subcommand == "run":
        load([command.asked])


def _parts(args: Sequence[str], options: Mapping[str, bool]) -> Iterator[_Part]:
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        if arg == "--":
            yield _Part("--", None)
            yield from (_Part(None, positional) for positional in rest)
        elif not arg.startswith("-") or arg == "-":
            yield _Part(None, arg)
        elif equals and options.get(name):
            yield _Part(name, value)
        elif options.get(arg):
            yield _Part(arg, next(rest, ""))
        else:
            yield _Part(arg, None)


class _Gathering:
    """What is known after each part of a command line."""

    def __init__(self, subcommand: str) -> None:
        self.subcommand = subcommand
        self.args: list[str] = []
        self.files: dict[str, str] = {}
        self.configs: list[Tree] = []
        self.flags: Tree = {}
        self.settings: list[Tree] = []
        self.paths: list[tuple[str, str]] = []
        self._positionals = 0

    def take(self, part: _Part) -> None:
        if part.option is None:
            self.args.append(self._positional(str(part.value)))
        elif part.value is None:
            self.args.append(part.option)
        else:
            self.args += [part.option, self._option(part.option, part.value)]

    def _positional(self, value: str) -> str:
        first = self._positionals == 0
        self._positionals += 1
        if not first:
            return value
        match self.subcommand:
            case "run":
                self.flags["method"] = parse_method(value)
                return self._method(value)
            case "embed":
                self.flags["stream"] = parse_stream(value)
            case "sweep" if Path(value).suffix in _SPACES:
                return self._travels(_existing(value))
        return value

    def _option(self, option: str, value: str) -> str:
        match option:
            case "--config":
                path = shipped.find(value, "clusters")
                self.configs.append(execution_part(read_file(path)))
                return self._travels(path)
            case "--stream":
                self.flags["stream"] = parse_stream(value)
            case "--embeddings":
                self.flags["stream"] = parse_stream(f"embeddings:{value}")
            case "--probe":
                self.flags["probe"] = parse_probe(value)
            case "--backbone":
                self.flags["backbone"] = {"name": value}
            case "--set" if self.subcommand != "synth" or value.startswith("execution."):
                self.settings.append(parse_setting(value))
            case _ if option in _PATHS:
                self.paths.append((option, value))
            case _ if option.removeprefix("--") in _PLACE:
                self.flags.setdefault("execution", {})[option.removeprefix("--")] = value
        return value

    def _method(self, text: str) -> str:
        spec = parse_method(text)
        target = spec.get("target", "")
        file, colon, name = target.partition(".py:")
        if not target.endswith(".py") and not colon:
            return text  # a built-in one, or a module that the nodes have
        path = f"{file}.py" if colon else target
        moved = self._travels(_existing(path))
        return f"{moved}:{name}" if colon else moved

    def _travels(self, path: Path) -> str:
        """The name under which a file lies beside the command, wherever that runs."""
        moved = f"files/{len(self.files)}/{path.name}"
        self.files[moved] = _text(path)
        return moved


def with_requirements(command: Command, file: str | None) -> Command:
    """The command with what the nodes are to install first beside it."""
    if file is None:
        return command
    return replace(command, files={**command.files, REQUIREMENTS: _text(_existing(file))})


def kept_offline(command: Command, environ: Mapping[str, str]) -> Command:
    """The command with the offline flags of an environment."""
    return replace(command, offline={name: environ[name] for name in _OFFLINE if name in environ})


def _existing(text: str) -> Path:
    path = at_home(text)
    if not is_file(path):
        raise ConfigError("no such file", got=text, do="check the path")
    return path


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(
                "a file that travels with a command is a config, a space or a method",
                got=f"{path}, {path.stat().st_size / 2**20:.1f} MiB",
                do="put data on a mount or in a bucket that every node sees",
            )
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file cannot be read", got=str(path), do=str(error)) from error


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings by its dotted path."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
