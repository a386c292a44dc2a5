"""Registration of FastAPI, Flask and plain programs, and their health endpoints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.testclient import TestClient
from support import DEADLINE, Program, Registry, eventually, free_port, get_json

from waypost import ServiceDiscoveryClient, discovery
from waypost.errors import NoUsableInstance
from waypost.helpers import HealthCheck, register_health_check_endpoint
from waypost.registration import register_service

FASTAPI = """
import asyncio, sys, uvicorn
from fastapi import FastAPI
from waypost.registration import register_service
from waypost.helpers import register_health_check_endpoint

app = FastAPI()
port = int(sys.argv[1])
registration = register_service(
    app=app, service_name="shop", port=port, version="1.0.0", metadata={"region": "us-east"},
    check_interval="1s",
)

@app.get("/")
async def root():
    await asyncio.sleep(0.01)
    return {"state": registration.state}

uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", workers=None)
"""

FLASK = """
import sys
from flask import Flask
from waypost.registration import get_service_metadata, register_service

app = Flask("shop")
port = int(sys.argv[1])
register_service(app=app, service_name="shop", port=port, version="1.0.0",
                 metadata={"region": "us-east"}, check_interval="1s")

@app.get("/")
def root():
    return get_service_metadata()

app.run("127.0.0.1", port)
"""

PLAIN = """
import http.server, sys
from waypost.registration import register_service

port = int(sys.argv[1])
register_service(service_name="shop", port=port, version="1.0.0", metadata={"region": "us-east"},
                 check_interval="1s")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.mark.parametrize("source", [FASTAPI, FLASK, PLAIN], ids=["fastapi", "flask", "plain"])
def test_a_program_is_found_while_it_serves(
    registry: Registry, run_program: Any, source: str
) -> None:
    port = free_port()
    program = run_program(source, str(port))
    [found] = eventually(lambda: registry.passing("shop"), program.output)
    assert found["Service"]["Port"] == port
    assert found["Service"]["Meta"]["region"] == "us-east"
    assert ServiceDiscoveryClient().discover_service("shop")[0].version == "1.0.0"
    program.stop()
    assert registry.instances("shop") == []


def test_sigterm_also_deregisters_what_was_registered_otherwise(
    embedded: Registry, run_program: Any
) -> None:
    more = "import waypost; waypost.register_service('more', {'port': 1})"
    program = run_program(f"{more}\n{PLAIN}", str(free_port()))
    eventually(lambda: embedded.instances("shop") and embedded.instances("more"))
    assert program.stop() == -signal.SIGTERM
    assert embedded.instances("shop") == embedded.instances("more") == []


def test_shutting_down_a_server_loses_no_request(embedded: Registry, run_program: Any) -> None:
    first, second = free_port(), free_port()
    programs = [run_program(FASTAPI, str(port)) for port in (first, second)]
    eventually(lambda: len(embedded.passing("shop")) == 2)
    client = ServiceDiscoveryClient()
    assert len(client.discover_service("shop")) == 2
    failures: list[str] = []
    counted = {first: 0, second: 0}
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            with client.pick("shop") as endpoint:
                try:
                    get_json(endpoint.url_for("/"))
                    counted[endpoint.port] += 1
                except OSError as error:
                    failures.append(f"{endpoint.port}: {error!r}")

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: counted[first] > 50 and counted[second] > 50)
    programs[0].stop()
    seen = counted[second]
    eventually(lambda: counted[second] > seen + 50)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_readiness_fails_before_the_server_ends(embedded: Registry, run_program: Any) -> None:
    port = free_port()
    program = run_program(FASTAPI.replace('check_interval="1s"', "propagation=3.0"), str(port))
    eventually(lambda: get_json(f"http://127.0.0.1:{port}/health")["status"] == "passing")
    eventually(lambda: get_json(f"http://127.0.0.1:{port}/")["state"] == "registered")
    program.process.send_signal(signal.SIGTERM)

    def status() -> int:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            return 200
        except urllib.error.HTTPError as error:
            return error.code

    eventually(lambda: status() == 503)
    eventually(lambda: embedded.instances("shop") == [])
    assert get_json(f"http://127.0.0.1:{port}/livez") == {"status": "passing"}
    # A second signal ends it now.
    program.process.send_signal(signal.SIGTERM)
    program.process.wait(2.5)


def test_a_registry_that_is_down_at_the_start_gets_the_registration_later(
    embedded: Registry, run_program: Any
) -> None:
    embedded.kill()
    port = free_port()
    program = run_program(FASTAPI, str(port))
    eventually(lambda: get_json(f"http://127.0.0.1:{port}/")["state"] == "pending")
    embedded.start()
    eventually(lambda: embedded.passing("shop"), program.output)


def test_workers_on_one_port_are_one_instance_until_the_last_ends(
    embedded: Registry, run_program: Any
) -> None:
    source = """
from flask import Flask
from waypost.registration import register_service
import os
app = Flask("shop")
register_service(app=app, service_name="shop", port=int(os.environ["SHOP_PORT"]), check_interval="1s")

@app.get("/")
def pid():
    return {"pid": os.getpid()}
"""
    port = free_port()
    program = run_program("")
    program.process.wait()
    (program.log.parent / "shop.py").write_text(source)
    server = run_program(
        None, "-w", "3", "-b", f"127.0.0.1:{port}", "shop:app",
        module="gunicorn", SHOP_PORT=str(port),
    )
    eventually(lambda: embedded.passing("shop"))
    pids = set()

    def all_workers() -> bool:
        pids.add(get_json(f"http://127.0.0.1:{port}/")["pid"])
        return len(pids) == 3

    eventually(all_workers)
    gone = pids.pop()
    os.kill(gone, signal.SIGTERM)
    eventually(lambda: not _is_running(gone))
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        assert embedded.instances("shop"), server.output()
        time.sleep(0.05)
    server.stop()
    assert embedded.instances("shop") == [], server.output()


def test_a_lock_file_that_cannot_be_opened_does_not_prevent_registration(
    embedded: Registry, run_program: Any
) -> None:
    source = PLAIN.replace("import http.server", "import tempfile, http.server")
    source = source.replace("port = int", "tempfile.tempdir = '/nonexistent'\nport = int")
    program = run_program(source, str(free_port()))
    eventually(lambda: embedded.passing("shop"), program.output)
    program.stop()
    assert embedded.instances("shop") == []


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_application_forked_after_loading_serves_lookups_in_each_worker(
    embedded: Registry, run_program: Any
) -> None:
    source = """
import os
from flask import Flask
from waypost.discovery import get_service_url
app = Flask("shop")
print("before the fork:", get_service_url("auth"), flush=True)

@app.get("/")
def auth():
    return {"pid": os.getpid(), "auth": get_service_url("auth")}
"""
    embedded.register("auth", 5001)
    port = free_port()
    program = run_program("")
    program.process.wait()
    (program.log.parent / "front.py").write_text(source)
    server = run_program(
        None, "-w", "2", "--preload", "-b", f"127.0.0.1:{port}", "front:app", module="gunicorn"
    )
    answers = {}

    def both() -> bool:
        answer = get_json(f"http://127.0.0.1:{port}/")
        answers[answer["pid"]] = answer["auth"]
        return len(answers) == 2

    eventually(both, server.output)
    assert set(answers.values()) == {"http://127.0.0.1:5001"}
    embedded.register("auth", 5002)
    eventually(lambda: get_json(f"http://127.0.0.1:{port}/")["auth"].endswith(":5002"))


# === Health endpoints ===


def broken() -> bool:
    raise ConnectionError("refused")


async def check_cache() -> bool:
    await asyncio.sleep(0)
    return True


def check_database() -> bool:
    return True


#: Set when a check that hangs may end.
hang = threading.Event()


def slow() -> None:
    hang.wait(DEADLINE)


async def slow_async() -> None:
    await asyncio.sleep(60)


def get(app: Any, path: str) -> tuple[int, dict[str, Any], str]:
    if isinstance(app, flask.Flask):
        response = app.test_client().get(path)
        body = json.loads(response.data)
        return response.status_code, body, response.headers["cache-control"]
    answer = TestClient(app).get(path)
    return answer.status_code, answer.json(), answer.headers["cache-control"]


@pytest.mark.parametrize("make", [FastAPI, Starlette, lambda: flask.Flask("shop")])
def test_the_health_endpoint_reports_each_check(make: Any) -> None:
    app = make()
    register_health_check_endpoint(
        app=app, service_name="shop", check_functions=[check_database, check_cache]
    )
    status, report, caching = get(app, "/health")
    assert (status, caching) == (200, "no-store")
    durations = [check.pop("duration_ms") for check in report["checks"]]
    assert all(duration >= 0 for duration in durations)
    assert report == {
        "service": "shop",
        "status": "passing",
        "ready": True,
        "checks": [
            {"name": "database", "status": "passing", "critical": True},
            {"name": "cache", "status": "passing", "critical": True},
        ],
    }
    assert get(app, "/readyz")[0] == 200
    assert get(app, "/livez")[:2] == (200, {"status": "passing"})


@pytest.mark.parametrize("make", [FastAPI, lambda: flask.Flask("shop")])
def test_a_check_that_raises_or_hangs_is_a_failed_check(make: Any) -> None:
    app = make()
    hang.clear()
    register_health_check_endpoint(
        app,
        "shop",
        [
            broken,
            slow,
            slow_async,
            HealthCheck(lambda: False, name="false"),
            HealthCheck(broken, name="advisory", advisory=True),
        ],
        # Long enough for the other checks on a busy machine.
        timeout=2,
    )
    # Returns although two checks hang.
    status, report, _ = get(app, "/health")
    hang.set()
    assert (status, report["status"]) == (503, "critical")
    results = {check["name"]: (check["status"], check["error"]) for check in report["checks"]}
    assert results["broken"] == ("critical", "ConnectionError: refused")
    assert results["slow"] == ("critical", "no result within 2s")
    assert results["slow_async"][0] == "critical"
    assert results["false"] == ("critical", "the check returned false")
    assert results["advisory"] == ("warning", "ConnectionError: refused")
    assert get(app, "/livez")[0] == 200


def test_an_endpoint_of_the_application_is_kept(embedded: Registry) -> None:
    app = FastAPI()

    @app.get("/health")
    def own() -> dict[str, str]:
        return {"own": "yes"}

    port = free_port()
    register_service(app=app, service_name="shop", port=port)
    with TestClient(app) as client:
        assert client.get("/health").json() == {"own": "yes"}
        assert client.get("/livez").json() == {"status": "passing"}


def test_invalid_registrations_are_refused() -> None:
    with pytest.raises(ValueError, match="port 0 is not valid"):
        register_service(service_name="shop")
    with pytest.raises(TypeError, match="service_name"):
        register_service(port=80)
    with pytest.raises(TypeError, match="FastAPI, Starlette or Flask"):
        register_health_check_endpoint(object(), "shop")
    with pytest.raises(TypeError, match="not a function"):
        register_health_check_endpoint(FastAPI(), "shop", [True])  # type: ignore[list-item]
