"""Hosts a learner on a local Ray until a signal asks for its end.

python -m tests.compute.stoppable      prints `running`, `saved` and the signal's name
"""

from __future__ import annotations

import sys

from raycl.compute import StopRequest, catching_signals
from raycl.compute.ray_learner import host
from raycl.compute.ray_session import connect
from raycl.errors import StoppedError
from raycl.observe.events import Event, Warned
from tests.compute.workers import until_stopped


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def watch(event: Event) -> None:
    if isinstance(event, Warned):
        say(event.message)


if __name__ == "__main__":
    stop = StopRequest()
    with catching_signals(stop), connect(num_cpus=1, object_store_mib=100) as session:
        try:
            host(until_stopped, None, session=session, observer=watch, stop=stop)
        except StoppedError as stopped:
            say(str(stop.signal_name))
            sys.exit(stopped.exit_code)
