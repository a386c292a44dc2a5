"""Real registries on free ports, programs, and waiting for conditions."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import waypost.__main__

#: How long a test waits for a condition before it fails.
DEADLINE = 60.0


#: Outside of the range of outgoing connections.
_PORTS = itertools.cycle(range(12_000, 20_000))
for _ in range(random.randrange(8_000)):
    next(_PORTS)


def free_port() -> int:
    """A port of 127.0.0.1 that is free. Each is returned once before one is returned again."""
    while True:
        port = next(_PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def eventually(condition: Callable[[], Any], what: str | Callable[[], str] = "") -> Any:
    """Waits until a condition holds, and returns its value. `what` describes it, or returns the output of a
    program, which a failure then shows."""
    deadline = time.monotonic() + DEADLINE
    problem: object = None
    while time.monotonic() < deadline:
        try:
            value = condition()
            if value:
                return value
            problem = value
        except Exception as error:
            problem = error
        time.sleep(0.02)
    what = what() if callable(what) else what
    raise AssertionError(f"{what or condition} is not so after {DEADLINE:.0f} s: {problem!r}")


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=DEADLINE) as response:
        return json.load(response)


class Registry:
    """A registry that speaks Consul's HTTP API: the embedded one, or a real Consul."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.kind == "embedded":
            program = str(waypost.__main__.program())
            command = [program, "agent", "--http-port", str(self.port), "--dns-port", "0"]
        else:
            config = self.folder / "consul.json"
            ports = {
                "http": self.port,
                "server": free_port(),
                "serf_lan": free_port(),
                **dict.fromkeys(["serf_wan", "dns", "grpc", "https"], -1),
            }
            settings = {"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "err"}
            config.write_text(json.dumps({**settings, "ports": ports}))
            consul = os.environ.get("CONSUL_BIN", "consul")
            command = [consul, "agent", "-dev", "-config-file", str(config)]
        with (self.folder / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: get_json(f"{self.url}/v1/status/leader"), "the registry has a leader")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def instances(self, service: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get_json(f"{self.url}/v1/health/service/{service}")
        return found

    def passing(self, service: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get_json(f"{self.url}/v1/health/service/{service}?passing")
        return found

    def put(self, path: str, body: Any) -> None:
        request = urllib.request.Request(
            self.url + path, data=json.dumps(body).encode(), method="PUT"
        )
        urllib.request.urlopen(request, timeout=DEADLINE).close()

    def register(self, service: str, port: int, instance: str = "", **more: Any) -> None:
        """Registers an instance without checks, as another program would."""
        body = {"Name": service, "ID": instance or service, "Address": "127.0.0.1", "Port": port}
        self.put("/v1/agent/service/register", {**body, **more})

    def deregister(self, instance: str) -> None:
        self.put(f"/v1/agent/service/deregister/{instance}", {})


class Program:
    """A Python program that runs until the end of the test."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def output(self) -> str:
        return self.log.read_text()
