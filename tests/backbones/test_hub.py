"""Weights come from a hub that answers, once; a hub without them is told apart from none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raycl.backbones.content import backbone_digests
from tests.backbones.made_backbones import save_backbone

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """As much of the Hugging Face hub as a download needs: one repository, some/model."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = Path()
        self.sent: list[str] = []
        self.pause = 0.0
        """How long it thinks about each file that it sends."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may hang up: it asks whether we are there, and wants no more."""


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        repo, _, name = self.path.removeprefix("/").partition("/resolve/main/")
        file = self.server.folder / name
        body = file.read_bytes() if repo == "some/model" and name and file.is_file() else None
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{name}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if with_body and body is not None:
            self.server.sent.append(name)
            time.sleep(self.server.pause)
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


DIGESTS = """
import json, sys
from raycl.backbones.content import backbone_digests
from raycl.config.backbones import Backbone
from raycl.errors import DataError

try:
    print(json.dumps(backbone_digests(Backbone(name=sys.argv[1]))))
except DataError as error:
    sys.exit(str(error))
"""


def ask(hub: Hub, home: Path, name: str) -> subprocess.CompletedProcess[str]:
    """The digests as a process tells them, whose hub is this one: it is read at import."""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.run(
        [sys.executable, "-c", DIGESTS, name],
        env={
            **env,
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_model_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    hub.folder = tmp_path / "made"
    local = backbone_digests(save_backbone(hub.folder))
    for _ in range(2):
        told = ask(hub, tmp_path / "home", "hf-hub:some/model")
        assert told.returncode == 0, told.stderr
        assert tuple(json.loads(told.stdout)) == local
    assert hub.sent == ["open_clip_config.json", "open_clip_model.safetensors"]


def test_processes_of_one_node_fetch_a_model_once_together(hub: Hub, tmp_path: Path) -> None:
    """The hub's client holds a lock per file of the cache that they share."""
    hub.folder, hub.pause = tmp_path / "made", 1.0
    local = backbone_digests(save_backbone(hub.folder))
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask, hub, tmp_path / "home", "hf-hub:some/model") for _ in range(4)]
    for one in asked:
        assert one.result().returncode == 0, one.result().stderr
        assert tuple(json.loads(one.result().stdout)) == local
    assert sorted(hub.sent) == ["open_clip_config.json", "open_clip_model.safetensors"]


def test_a_hub_without_the_file_is_not_a_missing_network(hub: Hub, tmp_path: Path) -> None:
    told = ask(hub, tmp_path / "home", "hf-hub:some/other")
    assert told.returncode == 1
    assert "some/other has no open_clip_config.json" in told.stderr
    assert "Traceback" not in told.stderr
    assert hub.sent == []
