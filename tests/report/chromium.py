"""Headless Chromium over a pipe: just enough of its DevTools protocol to look at a page."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 60.0


def executable() -> str | None:
    """The browser on this machine, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page; every event that it has reported is kept."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer, self._last, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for answer in self._messages(deadline):
                if answer.get("id") == self._last:
                    assert "error" not in answer, answer
                    return answer["result"]
                self.events.append(answer)
        raise TimeoutError(f"the browser did not answer {method}")

    def _messages(self, deadline: float) -> Iterator[dict[str, Any]]:
        """At least one message, in order."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, deadline - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser is silent")
            self._buffer += part
        one, self._buffer = self._buffer.split(b"\0", 1)
        yield json.loads(one)

    def open(self, path: Path) -> None:
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.js(condition):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.05)

    def js(self, expression: str) -> Any:
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screen(self, width: int, height: int = 900, *, scheme: str = "light") -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )  # fmt: skip

    def complaints(self) -> list[str]:
        """Errors, warnings, dialogs and violations of the page's policy."""
        bad = {
            "Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled",
            "Page.javascriptDialogOpening", "Network.loadingFailed",
        }  # fmt: skip
        return [json.dumps(e["params"])[:400] for e in self.events if e.get("method") in bad]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        return [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]


@contextlib.contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, gone at the end."""
    down_read, down_write = os.pipe()
    up_read, up_write = os.pipe()
    options = (
        "--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe "
        "--no-first-run --disable-background-networking --disable-dev-shm-usage"
    )
    # The shell puts the pipes where Chromium looks for them.
    start = (
        f'exec 3<&{down_read} 4>&{up_write}; exec "$0" {options} "--user-data-dir=$1" about:blank'
    )
    process = subprocess.Popen(
        ["bash", "-c", start, program, str(profile)],
        pass_fds=(down_read, up_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(down_read)
    os.close(up_write)
    try:
        opened = Browser(down_write, up_read)
        yield opened
        with contextlib.suppress(OSError, TimeoutError):
            opened._session = ""
            opened.send("Browser.close")
    finally:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(down_write)
        os.close(up_read)
