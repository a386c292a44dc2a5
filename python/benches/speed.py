"""Compares look-ups and calls with what Python programs use otherwise:  python speed.py

Needs the packages of requirements.txt, and the program `consul` on PATH or in CONSUL_BIN. Variants take turns,
and the median of their rounds counts, so that a busy machine affects them alike.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import consul  # type: ignore[import-untyped]
import httpx

from waypost import ServiceDiscoveryClient, aio
from waypost.discovery import (
    ConsulServiceDiscovery,
    EnvServiceDiscovery,
    get_service_url,
    set_discovery_provider,
)
from waypost.httpx import AsyncWaypostTransport, WaypostTransport

ROUNDS = 15
INSTANCES = 10


def main() -> None:
    port, process = start_consul()
    try:
        for number in range(INSTANCES):
            register(port, number)
        set_discovery_provider(ConsulServiceDiscovery("127.0.0.1", port))
        get_service_url("auth")
        lookups(port)
        calls()
    finally:
        process.kill()
        process.wait()
    asyncio.run(concurrent_lookups())


def lookups(port: int) -> None:
    direct = consul.Consul(host="127.0.0.1", port=port)
    client = ServiceDiscoveryClient(registry_host="127.0.0.1", registry_port=port)
    client.get_service_url("auth")

    def python_consul() -> str:
        _, entries = direct.health.service("auth", passing=True)
        service = random.choice(entries)["Service"]
        return f"http://{service['Address']}:{service['Port']}"

    cache: dict[str, tuple[float, list[str]]] = {}

    def cached_in_a_dict() -> str:
        found = cache.get("auth")
        now = time.monotonic()
        if found is None or found[0] < now:
            _, entries = direct.health.service("auth", passing=True)
            services = [entry["Service"] for entry in entries]
            urls = [f"http://{service['Address']}:{service['Port']}" for service in services]
            found = cache["auth"] = (now + 60.0, urls)
        return random.choice(found[1])

    def leased() -> None:
        with client.pick("auth"):
            pass

    measured = in_turns(
        {
            "get_service_url": (lambda: get_service_url("auth"), 20_000),
            "client.get_service_url": (lambda: client.get_service_url("auth", "/users"), 20_000),
            "with client.pick": (leased, 20_000),
            "a dict and random.choice": (cached_in_a_dict, 20_000),
            "python-consul, health.service": (python_consul, 20),
        }
    )
    ours = measured["get_service_url"]
    for name, seconds in measured.items():
        print(f"{name:32} {seconds * 1e6:10.2f} us {seconds / ours:8.1f} x")


SERVER = """
import asyncio

async def handle(reader, writer):
    while await reader.readuntil(b"\\r\\n\\r\\n"):
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")

async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def calls() -> None:
    """Calls of a server in another process, so that it doesn't compete for the GIL."""
    command = [sys.executable, "-c", SERVER]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    os.environ["SERVICE_ECHO_URL"] = f"http://127.0.0.1:{port}"
    provider = EnvServiceDiscovery()
    bare = httpx.Client()
    ours = httpx.Client(transport=WaypostTransport(provider))
    loop = asyncio.new_event_loop()
    bare_async = httpx.AsyncClient()
    ours_async = httpx.AsyncClient(transport=AsyncWaypostTransport(provider))
    url = f"http://127.0.0.1:{port}/users"
    measured = in_turns(
        {
            "httpx": (lambda: bare.get(url), 200),
            "httpx, WaypostTransport": (lambda: ours.get("http://echo/users"), 200),
        }
    )
    measured |= in_turns(
        {
            "async httpx": (lambda: loop.run_until_complete(bare_async.get(url)), 200),
            "async httpx, WaypostTransport": (
                lambda: loop.run_until_complete(ours_async.get("http://echo/users")),
                200,
            ),
        }
    )
    server.kill()
    server.wait()
    for first in ("httpx", "async httpx"):
        with_ours = measured[f"{first}, WaypostTransport"]
        print(f"{first:32} {measured[first] * 1e6:10.2f} us")
        ratio = with_ours / measured[first]
        print(f"{first + ', WaypostTransport':32} {with_ours * 1e6:10.2f} us {ratio:8.2f} x")


class CountingRegistry(http.server.ThreadingHTTPServer):
    """Answers health queries of Consul's API, and counts them."""

    daemon_threads = True
    requests = 0


class RegistryHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingRegistry

    def do_GET(self) -> None:
        if "index=" in self.path:
            # A blocking query: there is no change.
            time.sleep(60)
        self.server.requests += 1
        service = {"Service": "auth", "ID": "auth", "Address": "10.0.0.1", "Port": 80}
        node = {"Node": "n", "Address": "10.0.0.1"}
        body = json.dumps([{"Service": service, "Node": node, "Checks": []}]).encode()
        time.sleep(0.1)
        self.send_response(200)
        self.send_header("x-consul-index", "7")
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


async def concurrent_lookups() -> None:
    registry = CountingRegistry(("127.0.0.1", 0), RegistryHandler)
    threading.Thread(target=registry.serve_forever, daemon=True).start()
    client = aio.ServiceDiscoveryClient(
        registry_host="127.0.0.1", registry_port=registry.server_address[1]
    )
    threads = threading.active_count()
    started = time.perf_counter()
    urls = await asyncio.gather(*(client.get_service_url("auth") for _ in range(10_000)))
    seconds = time.perf_counter() - started
    assert set(urls) == {"http://10.0.0.1:80"}
    more = threading.active_count() - threads
    print(
        f"10,000 concurrent look-ups: {registry.requests} request to the registry, "
        f"{seconds:.2f} s, {more} further threads of Python"
    )


Variant = tuple[Callable[[], Any], int]


def in_turns(variants: dict[str, Variant]) -> dict[str, float]:
    """The median duration of a call, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, (function, count) in variants.items():
            started = time.perf_counter()
            for _ in range(count):
                function()
            times[name].append((time.perf_counter() - started) / count)
    return {name: statistics.median(rounds) for name, rounds in times.items()}


def start_consul() -> tuple[int, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    ports = {"http": port, "server": port + 1, "serf_lan": port + 2}
    ports |= dict.fromkeys(["serf_wan", "dns", "grpc", "https"], -1)
    settings = {"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "err"}
    config = Path(tempfile.mkdtemp()) / "consul.json"
    config.write_text(json.dumps({**settings, "ports": ports}))
    program = os.environ.get("CONSUL_BIN", "consul")
    process = subprocess.Popen(
        [program, "agent", "-dev", "-config-file", str(config)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if len(urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status/leader").read()) > 4:
                return port, process
        except OSError:
            pass
        time.sleep(0.05)
    process.kill()
    raise SystemExit("Consul has no leader after 30 s")


def register(port: int, number: int) -> None:
    body = {"Name": "auth", "ID": f"auth-{number}", "Address": f"10.0.0.{number}", "Port": 80}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/agent/service/register", json.dumps(body).encode(), method="PUT"
    )
    urllib.request.urlopen(request).close()


if __name__ == "__main__":
    main()
