"""Leases: who is making an artefact now, so that others wait instead of making it too.

Every claimant writes a claim of its own and takes a ticket, as at a bakery: one more than
the highest it sees; the lowest live ticket holds the lease. A claim is dead when its
process is gone, or when its heartbeat has stood still for the time to live on the
observer's own clock, so clocks of two machines are never compared.

Guarantees that of live claimants one holds the lease, and that a dead one delays nobody
for longer than the time to live. A holder that was only stalled may work beside its
successor: the store is built so that both may write.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from raycl.errors import CorruptArtefactError, StoreError
from raycl.store.location import TEMPORARY, Location
from raycl.store.process import Process

TIME_TO_LIVE = 30.0
_BEATS_PER_LIFE = 6
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_PAUSE_AFAR = 0.002, 0.2, 2.0


def folder(key: str) -> str:
    """Where the claims on a key lie."""
    return f"leases/{key}"


@dataclass
class Claim:
    """One claimant's file: `ticket` is None until it has taken one."""

    key: str
    nonce: str
    ticket: int | None
    beats: int
    process: Process
    needs: list[str]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Claim:
        """The claim in these bytes; `CorruptArtefactError` if they are not one."""
        try:
            body = json.loads(data)
            claim = cls(**{**body, "process": Process(**body["process"])})
            if not all(type(n) is int for n in (claim.ticket or 0, claim.beats)):
                raise ValueError("its numbers are none")
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptArtefactError(f"not a claim: {error}") from error
        return claim


def claims(location: Location, under: str = "leases") -> Iterator[tuple[str, float, Claim | None]]:
    """Every claim file below a folder: its path, when it was written, what it says if whole."""
    for file in location.files(under):
        if file.path.endswith(TEMPORARY):
            continue
        try:
            claim = location.read_as(file.path, Claim.from_json)
        except CorruptArtefactError:
            yield file.path, file.modified, None
        else:
            if claim is not None:
                yield file.path, file.modified, claim


class Lease:
    """A claim that this process keeps alive."""

    def __init__(self, location: Location, key: str) -> None:
        self.claim = Claim(key, secrets.token_hex(8), None, 0, Process.this(), [])
        self.thread = threading.get_ident()
        self._location = location
        self._path = f"{folder(key)}/{self.claim.nonce}.json"
        self._lock = threading.Lock()
        self._open = True

    def write(self) -> None:
        self._location.write(self._path, self.claim.to_json())

    def take(self, ticket: int) -> None:
        with self._lock:
            self.claim.ticket = ticket
            self.write()

    def beat(self) -> None:
        """Shows that the claimant lives."""
        with self._lock:
            if self._open:
                self.claim.beats += 1
                self.write()

    def need(self, key: str) -> None:
        """Tells the garbage collector to spare an artefact while the lease is held."""
        with self._lock:
            if self._open and key != self.claim.key and key not in self.claim.needs:
                self.claim.needs.append(key)
                self.write()

    def release(self) -> None:
        with self._lock:
            self._open = False
            # The work under the lease is done; without heartbeats the claim dies by itself.
            with contextlib.suppress(StoreError):
                self._location.delete(self._path)


class Heart:
    """Beats for every open claim of a store, in one thread that ends when there are none."""

    def __init__(self, time_to_live: float) -> None:
        self._pause = time_to_live / _BEATS_PER_LIFE
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        _hearts.add(self)

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="raycl-heart", daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        with self._lock:
            self._leases.discard(lease)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            with self._lock:
                leases = list(self._leases)
                if not leases:
                    self._thread = None
                    return
            for lease in leases:
                # A beat that is lost only makes the claim look dead, which harms nobody.
                with contextlib.suppress(StoreError):
                    lease.beat()


_hearts: weakref.WeakSet[Heart] = weakref.WeakSet()


@atexit.register
def _stop_hearts() -> None:
    # A daemon thread inside pyarrow while the interpreter is taken down may crash it.
    for heart in list(_hearts):
        heart.stop()


class Queue:
    """One claimant's view of the claims on a key."""

    def __init__(self, location: Location, key: str, time_to_live: float) -> None:
        self._location = location
        self._key = key
        self._time_to_live = time_to_live
        self._seen: dict[str, tuple[int, float]] = {}

    def live(self) -> list[Claim]:
        found = (claim for _, _, claim in claims(self._location, folder(self._key)))
        return [claim for claim in found if claim is not None and not self._is_dead(claim)]

    def _is_dead(self, claim: Claim) -> bool:
        if claim.process.is_gone():
            return True
        now = time.monotonic()
        beats, since = self._seen.get(claim.nonce, (-1, now))
        if beats != claim.beats:
            self._seen[claim.nonce] = (claim.beats, now)
            return False
        return now - since > self._time_to_live

    def ahead_of(self, mine: Claim) -> Claim | None:
        """The live claim to wait for, if there is one."""
        assert mine.ticket is not None
        for claim in self.live():
            if claim.nonce == mine.nonce:
                continue
            # One without a ticket may yet take a lower one than it could see of ours.
            if claim.ticket is None or (claim.ticket, claim.nonce) < (mine.ticket, mine.nonce):
                return claim
        return None


def acquire(
    location: Location,
    lease: Lease,
    time_to_live: float,
    *,
    waiting: Callable[[Claim], None],
    unless: Callable[[], bool],
) -> bool:
    """Waits until the lease is held; False as soon as `unless` says it is not needed."""
    queue = Queue(location, lease.claim.key, time_to_live)
    lease.write()
    lease.take(1 + max((claim.ticket or 0 for claim in queue.live()), default=0))
    longest = _LONGEST_PAUSE if location.local_root else _LONGEST_PAUSE_AFAR
    pause, told = _FIRST_PAUSE, ""
    while (rival := queue.ahead_of(lease.claim)) is not None:
        if rival.ticket is not None and rival.nonce != told:
            told = rival.nonce
            waiting(rival)
        time.sleep(pause)
        pause = min(2 * pause, longest)
        if unless():
            return False
    return True
