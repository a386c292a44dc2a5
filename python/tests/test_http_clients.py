"""The transports of httpx and the adapter of requests: balancing, retries, outcomes."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
from support import DEADLINE, eventually, free_port
from test_discovery import Inventory

from waypost import NoneHealthy, ServiceDiscoveryClient, UnknownService
from waypost.httpx import AsyncWaypostTransport, WaypostTransport
from waypost.requests import WaypostAdapter


class Server(http.server.ThreadingHTTPServer):
    """A server that counts its requests and can be made to fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self.seen: list[tuple[str, str, str, bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.drops = False
        self.cuts = False
        self.is_chunked = False
        self.hold = threading.Event()
        self.hold.set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.command, self.path, self.headers["host"], body))
        if self.server.drops:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        content = str(self.server.port).encode()
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if self.server.is_chunked:
            self.send_header("transfer-encoding", "chunked")
            content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        else:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.flush()
        if self.server.cuts:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.server.hold.wait(30)
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    servers = [Server() for _ in range(3)]
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def discovery_of(*ports: int) -> ServiceDiscoveryClient:
    inventory = Inventory()
    inventory.services["auth"] = [
        {"id": str(port), "address": "127.0.0.1", "port": port} for port in ports
    ]
    return ServiceDiscoveryClient(provider=inventory)


Send = Callable[..., tuple[int, str]]


def by_httpx(client: ServiceDiscoveryClient) -> Send:
    session = httpx.Client(transport=WaypostTransport(client))

    def send(method: str, url: str, **kwargs: Any) -> tuple[int, str]:
        response = session.request(method, url, **kwargs)
        return response.status_code, response.text

    return send


def by_async_httpx(client: ServiceDiscoveryClient) -> Send:
    loop = asyncio.new_event_loop()
    session = httpx.AsyncClient(transport=AsyncWaypostTransport(client))

    def send(method: str, url: str, **kwargs: Any) -> tuple[int, str]:
        response = loop.run_until_complete(session.request(method, url, **kwargs))
        return response.status_code, response.text

    return send


def by_requests(client: ServiceDiscoveryClient) -> Send:
    session = requests.Session()
    session.mount("http://", WaypostAdapter(client))

    def send(method: str, url: str, content: Any = None, **kwargs: Any) -> tuple[int, str]:
        response = session.request(method, url, data=content, timeout=DEADLINE, **kwargs)
        return response.status_code, response.text

    return send


clients = pytest.mark.parametrize(
    "make", [by_httpx, by_async_httpx, by_requests], ids=["httpx", "async", "requests"]
)
CONNECT_ERRORS = (httpx.ConnectError, requests.exceptions.ConnectionError)
TRANSPORT_ERRORS = (httpx.TransportError, requests.exceptions.RequestException)


@clients
def test_requests_are_spread_over_the_instances(make: Any, servers: list[Server]) -> None:
    client = discovery_of(*(server.port for server in servers))
    send = make(client)
    answers = Counter(send("GET", "http://auth/users?x=1&y=%20")[1] for _ in range(30))
    assert set(answers) == {str(server.port) for server in servers}
    assert all(8 <= count <= 12 for count in answers.values())
    method, path, host, _ = servers[0].seen[0]
    assert (method, path) == ("GET", "/users?x=1&y=%20")
    assert host == f"127.0.0.1:{servers[0].port}"
    assert sum(i["in_flight"] for i in client.explain("auth")["instances"]) == 0
    assert sum(i["succeeded"] for i in client.explain("auth")["instances"]) == 30


@clients
def test_other_urls_are_left_alone(make: Any, servers: list[Server]) -> None:
    send = make(discovery_of(1))
    assert send("GET", f"http://127.0.0.1:{servers[0].port}/x")[1] == str(servers[0].port)
    assert send("GET", f"http://localhost:{servers[0].port}/x")[1] == str(servers[0].port)


@clients
def test_a_refused_connection_is_retried_elsewhere_whatever_the_method(
    make: Any, servers: list[Server]
) -> None:
    client = discovery_of(free_port(), servers[0].port)
    send = make(client)
    for _ in range(6):
        assert send("POST", "http://auth/", content=b"data") == (200, str(servers[0].port))
    assert {body for *_, body in servers[0].seen} == {b"data"}
    failed = [i["failed"] for i in client.explain("auth")["instances"]]
    assert sum(failed) > 0


@clients
def test_a_lost_response_is_retried_only_if_the_method_is_idempotent(
    make: Any, servers: list[Server]
) -> None:
    servers[0].drops = True
    send = make(discovery_of(servers[0].port, servers[1].port))
    assert {send("PUT", "http://auth/", content=b"x")[0] for _ in range(2)} == {200}
    before = len(servers[0].seen)
    failures = 0
    for _ in range(2):
        try:
            send("POST", "http://auth/", content=b"x")
        except TRANSPORT_ERRORS:
            failures += 1
    assert failures == len(servers[0].seen) - before == 1


@clients
def test_a_response_that_is_cut_short_is_retried(make: Any, servers: list[Server]) -> None:
    servers[0].cuts = True
    client = discovery_of(servers[0].port, servers[1].port)
    send = make(client)
    assert [send("GET", "http://auth/") for _ in range(4)] == [(200, str(servers[1].port))] * 4
    assert servers[0].seen
    assert sum(i["in_flight"] for i in client.explain("auth")["instances"]) == 0


@clients
def test_a_body_that_cannot_be_sent_again_is_not_retried(make: Any, servers: list[Server]) -> None:
    send = make(discovery_of(free_port(), free_port()))
    if make is by_async_httpx:

        async def parts() -> Any:
            yield b"x"

        stream: Any = parts()
    else:
        stream = iter([b"x"])
    with pytest.raises(CONNECT_ERRORS):
        send("PUT", "http://auth/", content=stream)


@clients
def test_retries_are_limited_to_a_budget(make: Any, servers: list[Server]) -> None:
    for server in servers:
        server.drops = True
    client = discovery_of(*(server.port for server in servers))
    send = make(client)
    start = time.monotonic()
    for _ in range(100):
        with pytest.raises(TRANSPORT_ERRORS):
            send("GET", "http://auth/")
    elapsed = time.monotonic() - start
    total = sum(len(server.seen) for server in servers)
    # A fifth of the requests, and the reserve of one per second for ten seconds.
    assert 100 + 20 <= total <= 100 + 20 + 15 + elapsed


@clients
def test_the_reason_why_there_is_no_instance_is_the_cause_of_the_exception(make: Any) -> None:
    client = discovery_of(1)
    with pytest.raises(CONNECT_ERRORS, match="nobody") as unknown:
        make(client)("GET", "http://nobody/")
    assert isinstance(unknown.value.__cause__, UnknownService)
    inventory = Inventory()
    inventory.services["sick"] = [{"url": "http://127.0.0.1:1", "health": "critical"}]
    with pytest.raises(CONNECT_ERRORS) as sick:
        make(ServiceDiscoveryClient(provider=inventory))("GET", "http://sick/")
    assert isinstance(sick.value.__cause__, NoneHealthy)


@clients
def test_server_errors_eject_an_instance_and_are_returned(
    make: Any, servers: list[Server]
) -> None:
    servers[0].status = 500
    client = discovery_of(*(server.port for server in servers))
    send = make(client)
    statuses = [send("GET", "http://auth/")[0] for _ in range(15)]
    assert statuses.count(500) >= 1

    def is_ejected() -> bool:
        return {send("GET", "http://auth/")[0] for _ in range(6)} == {200}

    eventually(is_ejected)


@clients
def test_a_redirect_within_the_service_goes_through_discovery(
    make: Any, servers: list[Server]
) -> None:
    class Redirecting(Handler):
        def do_GET(self) -> None:
            if self.path == "/old":
                self.send_response(302)
                self.send_header("location", "/new")
                self.send_header("content-length", "0")
                self.end_headers()
            else:
                self.answer()

    servers[0].RequestHandlerClass = Redirecting
    send = make(discovery_of(servers[0].port))
    extra = {} if make is by_requests else {"follow_redirects": True}
    assert send("GET", "http://auth/old", **extra) == (200, str(servers[0].port))
    assert servers[0].seen[-1][1] == "/new"


def in_flight(client: ServiceDiscoveryClient) -> int:
    return sum(i["in_flight"] for i in client.explain("auth")["instances"])


def test_a_streamed_response_is_in_flight_until_it_is_read(servers: list[Server]) -> None:
    client = discovery_of(servers[0].port)
    servers[0].hold.clear()
    servers[0].is_chunked = True
    with httpx.Client(transport=WaypostTransport(client)) as session:
        with session.stream("GET", "http://auth/") as response:
            assert in_flight(client) == 1
            servers[0].hold.set()
            response.read()
        assert in_flight(client) == 0
    servers[0].hold.clear()
    session2 = requests.Session()
    session2.mount("http://", WaypostAdapter(client))
    with session2.get("http://auth/", stream=True, timeout=DEADLINE) as answer:
        assert in_flight(client) == 1
        servers[0].hold.set()
        assert answer.content
    assert in_flight(client) == 0


def test_the_environments_provider_is_the_default(
    monkeypatch: pytest.MonkeyPatch, servers: list[Server]
) -> None:
    monkeypatch.setenv("SERVICE_AUTH_URL", f"http://127.0.0.1:{servers[0].port}/v2")
    with httpx.Client(transport=WaypostTransport()) as session:
        assert session.get("http://auth/users").text == str(servers[0].port)
        assert str(session.get("http://auth/users").url) == "http://auth/users"
    session2 = requests.Session()
    session2.mount("http://", WaypostAdapter())
    assert session2.get("http://auth/users", timeout=DEADLINE).url == "http://auth/users"
    assert {path for _, path, *_ in servers[0].seen} == {"/v2/users"}
