"""A process that uses a store, for the tests that start, stall and kill some.

    python store_worker.py make URI TTL NAME    get_or_make one artefact, told by its pid
    python store_worker.py hold URI TTL NAME    hold a lease, touching NAME-part, until killed
    python store_worker.py puts URI TTL NAME    put over one artefact again and again
    python store_worker.py append URI TTL NAME  append to a journal again and again
    python store_worker.py compact URI TTL NAME compact a journal again and again

It prints a line when it begins the work, and waits for a line where it says so.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from typing import Any

from store_specs import spec

from raycl.observe.events import Event, Waiting
from raycl.store import Store


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tell(event: Event) -> None:
    if isinstance(event, Waiting):
        say(f"waiting for {event.holder}")


def make(store: Store, name: str) -> None:
    def work() -> dict[str, Any]:
        say("making")
        sys.stdin.readline()
        return {"by.json": os.getpid(), "big.bin": str(os.getpid()).encode() * 1000}

    found = store.get_or_make(spec(name), work)
    say(f"{'computed' if store.computed else 'reused'} {found['by.json']}")


def hold(store: Store, name: str) -> None:
    with store.lease(spec(name)):
        store.get(spec(f"{name}-part"))
        say("holding")
        sys.stdin.readline()


def puts(store: Store, name: str) -> None:
    for count in itertools.count():
        store.put(spec(name), {"n.json": count, "n.bin": bytes([count % 256]) * 20_000})
        if count == 0:
            say("putting")


def append(store: Store, name: str) -> None:
    journal = store.journal(name)
    for count in itertools.count():
        journal.append({"pid": os.getpid(), "n": count})
        say(str(count))
        time.sleep(0.001)


def compact(store: Store, name: str) -> None:
    journal = store.journal(name)
    say("compacting")
    while True:
        journal.compact()


if __name__ == "__main__":
    command, uri, ttl, name = sys.argv[1:]
    work = {"make": make, "hold": hold, "puts": puts, "append": append, "compact": compact}
    work[command](Store.open(uri, tell, lease_ttl=float(ttl)), name)
