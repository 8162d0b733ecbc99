"""The artefact store: what was computed once is found again, by any process.

An artefact is a record and its payload files under `artefacts/<kind>/<slug>/<digest>/`.
The record is written last and commits it; payload files carry their writer's nonce; the
last record wins. `get_or_make` is the only producer a caller needs.

Guarantees: what `get` returns was checked against its checksums; a process may die, or
two may write at once, at any moment, and every reader finds a whole artefact or none; a
damaged one is discarded and made again. Does not decide what is garbage (see `collect`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raycl.errors import CorruptArtefactError, StoppedError, StoreError
from raycl.observe.events import Computed, Observer, Reused, Waiting, Warned, nobody
from raycl.store import codecs
from raycl.store.artefact import ArtefactSpec, Payload, Record, is_key, is_kind, refuse_stale
from raycl.store.journal import Journal
from raycl.store.lease import TIME_TO_LIVE, Claim, Heart, Lease, acquire
from raycl.store.location import Location, open_location
from raycl.store.pins import Pins

Payloads = dict[str, Any]
Make = Callable[[], Mapping[str, Any]]
Needs = Sequence[str] | Callable[[], Sequence[str]]

_READ_ATTEMPTS = 5
_READERS = 32
"""Records read at a time from a bucket, where each waits for the network."""


@dataclass(frozen=True)
class Problem:
    """A stored file that is not what its record says."""

    key: str
    file: str
    what: str


class Store:
    """A store that was opened by this process; threads may share it."""

    def __init__(
        self,
        location: Location,
        observer: Observer,
        lease_ttl: float,
        stopping: Callable[[], bool],
    ) -> None:
        self.location = location
        self.uri = location.uri
        self.computed: Counter[str] = Counter()
        self.reused: Counter[str] = Counter()
        self._observer = observer
        self._lease_ttl = lease_ttl
        self._stopping = stopping
        self._heart = Heart(lease_ttl)
        self._held: list[Lease] = []
        self._lock = threading.Lock()
        self._pins = Pins(location)

    @classmethod
    def open(
        cls,
        uri: str,
        observer: Observer = nobody,
        *,
        lease_ttl: float = TIME_TO_LIVE,
        stopping: Callable[[], bool] = lambda: False,
    ) -> Store:
        """The store at a local path or an s3:// or gs:// address; `StoreError` if unusable.

        `stopping` ends a wait for another process's work, with a `StoppedError`.
        """
        return cls(open_location(uri), observer, lease_ttl, stopping)

    # Reading

    def has(self, spec: ArtefactSpec) -> bool:
        """Whether a readable record is there and its payloads have their sizes."""
        record = self.record(spec)
        if record is None:
            return False
        sizes = ((payload.bytes, payload.file) for payload in record.payloads.values())
        return all(self.location.size(_path(spec.key, file)) == size for size, file in sizes)

    def get(self, spec: ArtefactSpec, only: Collection[str] | None = None) -> Payloads | None:
        """The payloads (or `only` those named), checked and decoded, or None; what is
        damaged is discarded."""
        self._touch(spec.key)
        record = self.record(spec)
        for _ in range(_READ_ATTEMPTS):
            if record is None:
                return None
            refuse_stale(record, spec)
            try:
                return self.read(record, only)
            except CorruptArtefactError as error:
                # Another writer may have replaced the record and removed its files.
                fresh = self.record(spec)
                if fresh == record:
                    self._warn(f"{error.what}; it is discarded and made again")
                    self.discard(spec)
                    return None
                record = fresh
        return None

    def record(self, spec: ArtefactSpec | str) -> Record | None:
        """The record of a spec or of a key; one that cannot be read counts as absent."""
        key = _known_key(spec) if isinstance(spec, str) else spec.key
        try:
            return self._record_of(key)
        except CorruptArtefactError as error:
            self._warn(f"the record of {key} counts as absent: {error.what}")
            return None

    def _record_of(self, key: str) -> Record | None:
        record = self.location.read_as(_path(key, "record.json"), Record.from_json)
        if record is not None and record.key != key:
            raise CorruptArtefactError(f"the record of another artefact, {record.key}")
        return record

    def read(self, record: Record, only: Collection[str] | None = None) -> Payloads:
        """The payloads behind a record; `CorruptArtefactError` if one is damaged."""
        return {
            name: codecs.decode(name, self._read_payload(record.key, payload))
            for name, payload in record.payloads.items()
            if only is None or name in only
        }

    def records(self, kind: str | None = None) -> Iterator[Record]:
        """Every readable record, of one kind or of all."""
        paths = (file.path for file in self.location.files(_folder(kind)))
        found = (_key_of(path) for path in paths if path.endswith("/record.json"))
        for record in self.records_of(key for key in found if is_key(key)):
            if record is not None:
                yield record

    def records_of(self, keys: Iterable[str]) -> Iterator[Record | None]:
        """The record of each key, in order; from afar many are read at a time."""
        if self.location.local_root is not None:
            yield from map(self.record, keys)
            return
        with ThreadPoolExecutor(_READERS, thread_name_prefix="raycl-records") as readers:
            yield from readers.map(self.record, keys)

    def verify(self, kind: str | None = None) -> Iterator[Problem]:
        """Reads everything again and tells what is missing or differs."""
        for file in self.location.files(_folder(kind)):
            if file.path.endswith("/record.json"):
                yield from self._problems(file.path)

    def _problems(self, path: str) -> Iterator[Problem]:
        key = _key_of(path)
        try:
            record = self._record_of(key)
        except CorruptArtefactError as error:
            yield Problem(key, path, error.what)
            return
        found: list[Problem] = []
        for payload in record.payloads.values() if record else ():
            try:
                self._read_payload(key, payload)
            except CorruptArtefactError as error:
                found.append(Problem(key, _path(key, payload.file), error.what))
        if not found:
            return
        # Not a problem if a writer replaced the artefact while it was read.
        with contextlib.suppress(CorruptArtefactError):
            if self._record_of(key) != record:
                return
        yield from found

    def _read_payload(self, key: str, payload: Payload) -> bytes | memoryview:
        path = _path(key, payload.file)
        # Arrow tables stay where they are on a local disk; writers replace, never rewrite.
        mapped = payload.file.endswith(".arrow")
        data = self.location.view(path) if mapped else self.location.read(path)
        if data is None:
            raise CorruptArtefactError(f"the payload {path} is missing")
        if len(data) != payload.bytes or hashlib.sha256(data).hexdigest() != payload.sha256:
            raise CorruptArtefactError(f"the payload {path} differs from its checksum")
        return data

    # Writing

    def put(
        self, spec: ArtefactSpec, payloads: Mapping[str, Any], *, needs: Sequence[str] = ()
    ) -> None:
        """Stores an artefact; over an older one, which readers see until the end."""
        self._put(spec, payloads, needs, 0.0)

    def _put(
        self, spec: ArtefactSpec, payloads: Mapping[str, Any], needs: Sequence[str], seconds: float
    ) -> None:
        self._touch(spec.key)
        before = self.record(spec)
        written = self._write_payloads(spec.key, payloads)
        record = _new_record(spec, written, needs, seconds)
        try:
            self.location.write(_path(spec.key, "record.json"), record.to_json())
        except BaseException:
            self._remove_payloads(spec.key, written)
            raise
        if before is not None:
            self._remove_payloads(spec.key, before.payloads)

    def _write_payloads(self, key: str, payloads: Mapping[str, Any]) -> dict[str, Payload]:
        nonce = secrets.token_hex(6)
        written: dict[str, Payload] = {}
        try:
            for name, value in payloads.items():
                data = codecs.encode(name, value)
                checksum = hashlib.sha256(data).hexdigest()
                written[name] = Payload(f"{nonce}-{name}", len(data), checksum)
                self.location.write(_path(key, written[name].file), data)
        except BaseException:
            self._remove_payloads(key, written)
            raise
        return written

    def _remove_payloads(self, key: str, payloads: Mapping[str, Payload]) -> None:
        # What stays behind is an orphan, which the garbage collector finds.
        with contextlib.suppress(StoreError):
            for payload in payloads.values():
                self.location.delete(_path(key, payload.file))

    def discard(self, spec: ArtefactSpec | str) -> None:
        """Removes an artefact: its record first, so that nobody finds half of it."""
        record = self.record(spec)
        key = _known_key(spec) if isinstance(spec, str) else spec.key
        self.location.delete(_path(key, "record.json"))
        if record is not None:
            self._remove_payloads(key, record.payloads)

    def get_or_make(self, spec: ArtefactSpec, make: Make, *, needs: Needs = ()) -> Payloads:
        """The stored payloads, or those of `make`, stored; one process makes, others wait.

        What `make` returned is returned as it is; a later hit gives it as the formats do:
        lists for tuples, tensors on the CPU.
        """
        found = self._reuse(spec)
        if found is not None:
            return found
        # Again only if what another process just put turns out to be damaged.
        while True:
            with self._leased(spec, unless=lambda: self.has(spec)) as held:
                found = self._reuse(spec)
                if found is not None:
                    return found
                if held:
                    return self._make(spec, make, needs)

    def _reuse(self, spec: ArtefactSpec) -> Payloads | None:
        payloads = self.get(spec)
        if payloads is not None:
            with self._lock:
                self.reused[spec.kind] += 1
            self._observer(Reused(spec.kind, spec.key))
        return payloads

    def _make(self, spec: ArtefactSpec, make: Make, needs: Needs) -> Payloads:
        begin = time.perf_counter()
        payloads = dict(make())
        seconds = time.perf_counter() - begin
        self._put(spec, payloads, needs() if callable(needs) else needs, seconds)
        with self._lock:
            self.computed[spec.kind] += 1
        self._observer(Computed(spec.kind, spec.key, seconds))
        return payloads

    # Leases, pins, journals

    @contextlib.contextmanager
    def lease(self, spec: ArtefactSpec) -> Iterator[None]:
        """Waits for the lease on an artefact and holds it."""
        with self._leased(spec, unless=lambda: False):
            yield

    @contextlib.contextmanager
    def _leased(self, spec: ArtefactSpec, unless: Callable[[], bool]) -> Iterator[bool]:
        lease = Lease(self.location, spec.key)
        inner = any(h.thread == lease.thread and h.claim.key == spec.key for h in self._held)
        assert not inner, f"{spec.key} is needed to make itself"

        def waiting(claim: Claim) -> None:
            self._observer(Waiting(spec.key, str(claim.process)))

        def needless() -> bool:
            if self._stopping():
                raise StoppedError(f"stopped while waiting for {spec.key}")
            return unless()

        self._heart.add(lease)
        try:
            held = acquire(self.location, lease, self._lease_ttl, waiting=waiting, unless=needless)
            with self._holding(lease) if held else contextlib.nullcontext():
                yield held
        finally:
            self._heart.remove(lease)
            lease.release()

    @contextlib.contextmanager
    def _holding(self, lease: Lease) -> Iterator[None]:
        with self._lock:
            self._held.append(lease)
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(lease)

    def _touch(self, key: str) -> None:
        """Before a key is looked at, so that gc spares it while our leases are held."""
        with self._lock:
            held = list(self._held)
        for lease in held:
            lease.need(key)

    def pin(self, key: str, why: str) -> None:
        """Keeps an artefact, and what it needs, from the garbage collector."""
        if self.record(key) is None:
            raise StoreError(
                "nothing is stored under this key", got=key, do="`raycl store ls` shows the keys"
            )
        self._pins.add(key, why)

    def unpin(self, key: str) -> None:
        """Takes the pin away, if there is one."""
        self._pins.remove(_known_key(key))

    def pins(self) -> dict[str, str]:
        """Pinned keys and why they are."""
        return self._pins.all()

    def journal(self, name: str) -> Journal:
        """The journal of that name, empty at first."""
        return Journal(self.location, name, self._warn)

    def _warn(self, message: str) -> None:
        self._observer(Warned(message))


@functools.cache
def _versions() -> dict[str, str]:
    try:
        own = importlib.metadata.version("raycl")
    except importlib.metadata.PackageNotFoundError:
        own = "not installed"
    return {"python": platform.python_version(), "raycl": own}


def _path(key: str, file: str) -> str:
    return f"artefacts/{key}/{file}"


def _key_of(path: str) -> str:
    return path.removeprefix("artefacts/").removesuffix("/record.json")


def _folder(kind: str | None) -> str:
    if kind is None:
        return "artefacts"
    if not is_kind(kind):
        raise StoreError("not a kind of artefact", got=repr(kind), do="leave it out to see all")
    return f"artefacts/{kind}"


def _known_key(key: str) -> str:
    if not is_key(key):
        raise StoreError(
            "not the key of an artefact",
            got=repr(key),
            do="a key is kind/name/digest, as `raycl store ls` shows it",
        )
    return key


def _new_record(
    spec: ArtefactSpec, payloads: dict[str, Payload], needs: Sequence[str], seconds: float
) -> Record:
    return Record(
        key=spec.key,
        kind=spec.kind,
        name=spec.name,
        identity=spec.identity,
        described=spec.described,
        revision=spec.revision,
        parents=spec.parents,
        needs=tuple(needs),
        versions=dict(_versions()),
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
        seconds=seconds,
        host=socket.gethostname(),
        payloads=payloads,
    )
