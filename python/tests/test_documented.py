"""The Python examples of the documents that this system was specified by, unchanged.

The files in `documented/` differ from the documents in their import lines only, except for the two about
adding a provider: the documents leave its methods empty. Their ports 8500 and 8080 are replaced by ports of
the test when they run.
"""

from __future__ import annotations

import http.server
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import Registry, eventually, free_port, get_json

from waypost import discovery
from waypost.discovery import get_service_url, set_discovery_provider

FOLDER = Path(__file__).parent / "documented"


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server that responds to each request with its path."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def source(name: str, registry: Registry, port: int) -> str:
    text = (FOLDER / f"{name}.py").read_text()
    return text.replace("8500", str(registry.port)).replace("8080", str(port))


def run(name: str, registry: Registry, port: int = 0, **names: Any) -> dict[str, Any]:
    """Runs an example, with the names that it takes from earlier ones. Returns its names."""
    exec(compile(source(name, registry, port), f"{name}.py", "exec"), names)
    return names


def test_discover_services(registry: Registry) -> None:
    registry.register("target-service", 5001, "target-1")
    registry.register("target-service", 5002, "target-2")
    names = run("discover_services", registry)
    assert [instance.id for instance in names["instances"]] == ["target-1", "target-2"]
    assert names["url"] in [f"http://127.0.0.1:{port}/api/resource" for port in (5001, 5002)]


def test_call_services_and_list_them(
    registry: Registry, server: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("auth", "backend"):
        registry.register(name, server)
    names = run("call_a_service", registry)
    assert names["auth_url"] == names["backend_url"] == f"http://127.0.0.1:{server}"
    assert (names["response"].status_code, names["response"].text) == (200, "/health")
    run("get_service_information", registry)
    run("get_all_services", registry)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Auth service is at http://127.0.0.1:{server} on port {server}"
    assert f"Service auth is at http://127.0.0.1:{server}" in lines
    assert f"Service backend is at http://127.0.0.1:{server}" in lines


def test_register_and_deregister(registry: Registry, server: int) -> None:
    run("register_a_service", registry, server)
    [found] = eventually(lambda: registry.passing("my-service"))
    assert found["Service"]["Address"] == "localhost"
    assert found["Service"]["Tags"] == ["http", "api"]
    assert get_service_url("my-service") == f"http://localhost:{server}"
    run("deregister_a_service", registry, server)
    assert registry.instances("my-service") == []


def test_set_the_provider(registry: Registry) -> None:
    names = run("set_the_provider", registry)
    assert discovery.get_discovery_provider() is names["provider"]
    assert f"consul.example.com:{registry.port}" in names["provider"].describe()


def test_fall_back_to_localhost(registry: Registry) -> None:
    registry.register("target-service", 5001)
    client = run("discover_services", registry)["client"]
    names = run("fall_back_to_localhost", registry, client=client)
    assert names["service_url"] == "http://127.0.0.1:5001"
    registry.deregister("target-service")
    eventually(
        lambda: run("fall_back_to_localhost", registry, client=client)["service_url"]
        == "http://localhost:8000"
    )


def test_weight_instances_by_version(registry: Registry) -> None:
    registry.register("auth", 5001, "old", Meta={"version": "1.0.0"})
    registry.register("auth", 5002, "new", Meta={"version": "2.0.0"})
    client = run("weight_instances_by_version", registry)["client"]
    urls = [client.get_service_url("auth") for _ in range(3000)]
    new, old = (urls.count(f"http://127.0.0.1:{port}") for port in (5002, 5001))
    assert new + old == 3000 and 1.6 < new / old < 2.5


SERVE = """
import uvicorn
uvicorn.run(app, host="127.0.0.1", port={port}, log_level="warning")
"""


def test_register_a_fastapi_service_with_health_checks(
    registry: Registry, run_program: Any
) -> None:
    port = free_port()
    names = ["register_a_fastapi_service", "add_health_check_endpoints"]
    blocks = [source(name, registry, port) for name in names]
    program = run_program("\n".join([*blocks, SERVE.format(port=port)]))
    [found] = eventually(lambda: registry.passing("my-service"), program.output)
    assert found["Service"]["Port"] == port
    # On a busy machine, a check may take longer than its 0.9 s.
    report = eventually(lambda: get_json(f"http://127.0.0.1:{port}/health"))
    assert [check["name"] for check in report["checks"]] == ["database", "cache"]
    assert report["status"] == "passing"
    program.stop()
    assert registry.instances("my-service") == [], program.output()


def test_register_with_metadata(registry: Registry, run_program: Any) -> None:
    port = free_port()
    start = "from fastapi import FastAPI\nfrom waypost.registration import register_service\napp = FastAPI()"
    block = source("register_with_metadata", registry, port)
    program = run_program("\n".join([start, block, SERVE.format(port=port)]))
    [found] = eventually(lambda: registry.instances("my-service"), program.output)
    assert found["Service"]["Meta"].items() >= {
        "api_version": "v2",
        "features": "authentication,billing,reporting",
        "region": "us-east",
    }.items()


def test_health_checks_of_an_application(registry: Registry) -> None:
    from fastapi import FastAPI

    app = FastAPI()
    run("add_health_check_endpoints", registry, app=app)
    response = TestClient(app).get("/health")
    assert (response.status_code, response.json()["status"]) == (200, "passing")


def test_a_configuration_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_DISCOVERY_CONFIG_FILE", str(FOLDER / "services.json"))
    assert get_service_url("auth") == "http://auth-service:5001"
    assert discovery.get_service("backend")["port"] == 5000


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_AUTH_URL", "http://auth-service:5001")
    monkeypatch.setenv("SERVICE_BACKEND_HOST", "backend-service")
    monkeypatch.setenv("SERVICE_BACKEND_PORT", "5000")
    assert get_service_url("auth") == "http://auth-service:5001"
    assert get_service_url("backend") == "http://backend-service:5000"


def test_add_a_provider(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    provider_class = run("add_a_provider", registry)["MyServiceDiscovery"]
    provider = provider_class({"auth": {"url": "http://my-auth:1"}})
    set_discovery_provider(provider)
    assert get_service_url("auth") == "http://my-auth:1"
    discovery.register_service("mine", {"port": 80, "address": "me"})
    eventually(lambda: get_service_url("mine", "") == "http://me:80")
    assert discovery.deregister_service("mine")
    assert list(provider.get_services()) == ["auth"]

    module = types.ModuleType("myservice")
    vars(module)["MyServiceDiscovery"] = provider_class
    monkeypatch.setitem(sys.modules, "myservice", module)
    choose = run("choose_an_added_provider", registry)["get_discovery_provider"]
    set_discovery_provider(choose("myservice"))
    assert discovery.get_services() == {}
