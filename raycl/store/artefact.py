"""What an artefact is: the spec that names it and the record that commits it.

Guarantees: a key depends on identity, producer revision and parents alone; every part of
a key is a safe path, whatever the name; a record that was changed by one byte is noticed.
Does no input or output.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property

from raycl.config.spec import DIGEST_LENGTH, Json, as_json, digest, digest_of_json
from raycl.errors import ConfigError, CorruptArtefactError, StaleArtefactError

SLUG_LENGTH = 80
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_KEY = re.compile(rf"{_KIND.pattern}/[A-Za-z0-9_][A-Za-z0-9._-]*/[0-9a-f]{{{DIGEST_LENGTH}}}")


def slug(name: str) -> str:
    """A readable, bounded, harmless path component for any name."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", plain)
    return safe[:SLUG_LENGTH].strip("-.") or "unnamed"


def is_kind(text: str) -> bool:
    """Whether a text may be the kind of an artefact."""
    return _KIND.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether a text has the form of an artefact's key."""
    return _KEY.fullmatch(text) is not None


@dataclass(frozen=True)
class ArtefactSpec:
    """What names an artefact.

    `identity` enters the key and leaves defaults out; `described` is the same with the
    defaults written out, kept to notice a default that changed. `parents` are keys or
    content digests that the meaning depends on.
    """

    kind: str
    name: str
    identity: dict[str, Json]
    described: dict[str, Json]
    revision: int = 1
    parents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_kind(self.kind):
            raise ConfigError(
                "the kind of an artefact is a short lower-case word",
                got=self.kind,
                do="use letters, digits, - and _, beginning with a letter",
            )

    @cached_property
    def digest(self) -> str:
        return digest([self.identity, self.revision, list(self.parents)])

    @cached_property
    def key(self) -> str:
        return f"{self.kind}/{slug(self.name)}/{self.digest}"

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class Payload:
    """One file of an artefact."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What commits an artefact: its meaning, how it was made, its files."""

    key: str
    kind: str
    name: str
    identity: dict[str, Json]
    described: dict[str, Json]
    revision: int
    parents: tuple[str, ...]
    needs: tuple[str, ...]
    versions: dict[str, str]
    created: str
    seconds: float
    host: str
    payloads: dict[str, Payload] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """The bytes of all payloads together."""
        return sum(payload.bytes for payload in self.payloads.values())

    def to_json(self) -> bytes:
        body = as_json(asdict(self))
        whole = {"checksum": digest(body), **body} if isinstance(body, dict) else {}
        return json.dumps(whole, indent=1, ensure_ascii=False).encode(errors="surrogatepass")

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """The record in these bytes; `CorruptArtefactError` if they are not one."""
        try:
            body = json.loads(data)
            checksum = body.pop("checksum")
            if checksum != digest_of_json(body) or set(body) != {f.name for f in fields(cls)}:
                raise ValueError("its checksum or its fields differ")
            payloads = {name: Payload(**payload) for name, payload in body["payloads"].items()}
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise CorruptArtefactError(f"not a whole record: {error}") from error
        body |= {
            "payloads": payloads,
            "parents": tuple(body["parents"]),
            "needs": tuple(body["needs"]),
        }
        return cls(**body)


def refuse_stale(record: Record, spec: ArtefactSpec) -> None:
    """Raises if the record means something else than what is asked under its key."""
    found = list(_differences(record.described, as_json(spec.described)))
    if not found:
        return
    lines = "; ".join(f"{name}: stored {old!r}, asked {new!r}" for name, old, new in found)
    raise StaleArtefactError(
        f"the stored artefact {record.key} was made with other values",
        got=lines,
        do="a default was changed without raising a revision: raise the revision of the spec "
        "or of its producer, or use another store",
    )


def _differences(old: Json, new: Json, name: str = "") -> Iterator[tuple[str, Json, Json]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for part in sorted(old.keys() & new.keys()):
            yield from _differences(old[part], new[part], f"{name}.{part}" if name else part)
    elif old != new:
        yield name, old, new
