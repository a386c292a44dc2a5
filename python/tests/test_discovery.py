"""The functions and providers of `waypost.discovery`."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE, Registry, eventually, free_port

import waypost
from waypost import aio
from waypost.discovery import (
    ConsulServiceDiscovery,
    EnvServiceDiscovery,
    KubernetesServiceDiscovery,
    ServiceDiscovery,
    StaticServiceDiscovery,
    deregister_service,
    get_discovery_provider,
    get_service,
    get_service_url,
    get_services,
    register_discovery_provider,
    register_service,
    set_discovery_provider,
)
from waypost.errors import (
    ConfigError,
    InvalidArgument,
    NoneHealthy,
    NotAuthorised,
    RegistryUnreachable,
    UnknownService,
    Unsupported,
    WaypostError,
)


def test_environment_variables_name_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_AUTH_URL", "http://auth-service:5001")
    monkeypatch.setenv("SERVICE_BACKEND_HOST", "backend-service")
    monkeypatch.setenv("SERVICE_BACKEND_PORT", "5000")
    assert get_service_url("auth") == "http://auth-service:5001"
    backend = get_service("backend")
    assert (backend["url"], backend["port"]) == ("http://backend-service:5000", 5000)
    assert sorted(get_services()) == ["auth", "backend"]
    assert EnvServiceDiscovery().get_service_url("auth") == "http://auth-service:5001"


def test_a_file_names_services_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    auth = {"url": "http://auth-service:5001", "address": "auth-service", "port": 5001}
    file.write_text(json.dumps({"auth": auth}))
    set_discovery_provider(StaticServiceDiscovery(file))
    assert get_service("auth")["address"] == "auth-service"
    file.write_text(json.dumps({"auth": "http://elsewhere:1"}))
    eventually(lambda: get_service_url("auth") == "http://elsewhere:1")


def test_an_error_in_the_file_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("auth:\n  address: auth-service\n  prot: 5001\n")
    with pytest.raises(ConfigError, match=r"services.yaml:3:3.*prot"):
        StaticServiceDiscovery(file)


def test_a_registry_is_queried_and_watched(registry: Registry) -> None:
    registry.register("auth", 5001, Tags=["api"], Meta={"version": "2.0.0", "region": "eu"})
    auth = get_service("auth")
    assert auth["url"] == "http://127.0.0.1:5001"
    assert (auth["tags"], auth["version"]) == (["api"], "2.0.0")
    assert auth["meta"]["region"] == "eu"
    assert get_services()["auth"]["port"] == 5001
    registry.register("auth", 5002)
    eventually(lambda: get_service_url("auth") == "http://127.0.0.1:5002")


def test_registering_and_deregistering(registry: Registry) -> None:
    port = free_port()
    data = {"address": "localhost", "port": port, "tags": ["http", "api"], "meta": {"shards": 4}}
    instance = register_service("my-service", {**data, "check": {"ttl": "10s"}})
    found = eventually(lambda: registry.passing("my-service"))
    assert found[0]["Service"]["ID"] == instance
    assert found[0]["Service"]["Tags"] == ["http", "api"]
    assert found[0]["Service"]["Meta"]["shards"] == "4"
    assert get_service_url("my-service") == f"http://localhost:{port}"
    assert deregister_service("my-service") is True
    assert registry.instances("my-service") == []
    assert deregister_service("my-service") is False


def test_the_end_of_a_program_deregisters(registry: Registry, run_program: Any) -> None:
    program = run_program("""
import pathlib, time
from waypost.discovery import register_service
register_service("short", {"port": 1234})
while not pathlib.Path("end").exists():
    time.sleep(0.02)
""")
    eventually(lambda: registry.instances("short"))
    (program.log.parent / "end").touch()
    assert program.process.wait(DEADLINE) == 0, program.output()
    assert registry.instances("short") == []


def test_consul_at_an_address(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_REGISTRY_PORT", "1")
    registry.register("auth", 5001)
    set_discovery_provider(ConsulServiceDiscovery(host="127.0.0.1", port=registry.port))
    assert get_service_url("auth") == "http://127.0.0.1:5001"
    assert str(registry.port) in get_discovery_provider().describe()
    client = waypost.ServiceDiscoveryClient(registry_host="127.0.0.1", registry_port=registry.port)
    assert client.get_service_url("auth", "/x") == "http://127.0.0.1:5001/x"


def test_each_cause_is_an_exception_of_its_own(registry: Registry) -> None:
    with pytest.raises(UnknownService) as unknown:
        get_service_url("nobody")
    error = unknown.value
    assert (error.service, error.age, error.retryable) == ("nobody", 0.0, False)
    assert str(registry.port) in (error.provider or "")
    registry.register("sick", 1, Check={"TTL": "1h", "Status": "critical"})
    with pytest.raises(NoneHealthy) as sick:
        get_service_url("sick")
    assert sick.value.retryable
    with pytest.raises(InvalidArgument):
        get_service_url("not a name", "http://default")
    down = ConsulServiceDiscovery("127.0.0.1", free_port())
    with pytest.raises(RegistryUnreachable) as unreachable:
        down.get_service_url("auth")
    assert unreachable.value.retryable and unreachable.value.age is None
    assert all(isinstance(e, WaypostError) for e in [error, sick.value, unreachable.value])


def test_a_default_is_used_for_failures_but_not_for_invalid_arguments(embedded: Registry) -> None:
    assert get_service_url("nobody", "http://localhost:9") == "http://localhost:9"
    assert get_service("nobody", "http://localhost:9")["port"] == 9
    assert get_service("nobody", {"url": "x"}) == {"url": "x"}
    with pytest.raises(InvalidArgument, match="URL"):
        get_service("nobody", "no url")


def test_a_wrong_key_of_a_registration_is_named(embedded: Registry) -> None:
    with pytest.raises(ConfigError, match="my-service.*unknown field `prot`.*`port`"):
        register_service("my-service", {"prot": 80})
    with pytest.raises(ConfigError, match="missing field `port`"):
        register_service("my-service", {})
    with pytest.raises(ConfigError, match="my-service.*exactly one of http, tcp"):
        register_service("my-service", {"port": 80, "check": {"interval": "10s"}})
    with pytest.raises(ConfigError, match="\"often\" is not a duration"):
        check = {"http": "/health", "interval": "often"}
        register_service("my-service", {"port": 80, "check": check})


def test_an_unknown_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_DISCOVERY_PROVIDER", "zookeeper")
    with pytest.raises(ConfigError, match="zookeeper.*consul, env, kubernetes, static"):
        get_service_url("auth")


def test_the_last_good_answer_is_used_in_an_outage(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register("auth", 5001)
    assert get_service_url("auth") == "http://127.0.0.1:5001"
    with caplog.at_level(logging.WARNING, "waypost"):
        registry.kill()
        eventually(lambda: any("127.0.0.1" in line.getMessage() for line in caplog.records))
    assert get_service_url("auth") == "http://127.0.0.1:5001"
    registry.start()
    registry.register("auth", 5002)
    eventually(lambda: get_service_url("auth") == "http://127.0.0.1:5002")


def test_kubernetes_is_configured_by_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    config = tmp_path / "config"
    config.write_text(
        f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{}}}}]
current-context: c
"""
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    provider = KubernetesServiceDiscovery(namespace="shop")
    assert "shop" in provider.describe() or str(port) in provider.describe()
    with pytest.raises(RegistryUnreachable):
        provider.get_service_url("auth")


# === Providers written in Python ===


class Inventory(ServiceDiscovery):
    """A provider whose answers a test sets."""

    refresh_interval = 0.05

    def __init__(self) -> None:
        self.services: dict[str, list[dict[str, Any]]] = {}
        self.error: Exception | None = None
        self.calls = 0

    def get_instances(self, service_name: str) -> list[dict[str, Any]] | None:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self.services.get(service_name)

    def get_service(self, service_name: str, default: Any = None) -> Any:
        instances = self.services.get(service_name)
        return instances[0] if instances else default

    def get_services(self) -> dict[str, Any]:
        return {name: instances[0] for name, instances in self.services.items()}


def test_a_provider_in_python_is_balanced_and_called_once_for_all_callers() -> None:
    inventory = Inventory()
    inventory.refresh_interval = 60.0
    inventory.services["auth"] = [{"address": f"10.0.0.{n}", "port": 80} for n in range(1, 4)]
    set_discovery_provider(inventory)
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(get_service_url("auth"))) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [urls.count(f"http://10.0.0.{n}:80") for n in range(1, 4)]
    assert sum(counts) == 30 and all(8 <= count <= 12 for count in counts)
    assert inventory.calls == 1
    assert get_discovery_provider() is inventory


def test_changes_of_a_provider_in_python_are_seen_and_its_last_answer_is_used_while_it_fails() -> None:
    inventory = Inventory()
    inventory.services["auth"] = [{"url": "http://a:1"}]
    set_discovery_provider(inventory)
    assert get_service_url("auth") == "http://a:1"
    inventory.services["auth"] = [{"url": "http://b:2"}]
    eventually(lambda: get_service_url("auth") == "http://b:2")
    inventory.error = ConnectionRefusedError("the inventory is down")
    calls = inventory.calls
    eventually(lambda: inventory.calls > calls + 1)
    assert get_service_url("auth") == "http://b:2"
    with pytest.raises(RegistryUnreachable, match="ConnectionRefusedError: the inventory is down"):
        get_service_url("other")
    inventory.error = NotAuthorised("no token")
    with pytest.raises(NotAuthorised, match="no token"):
        get_service_url("another")
    inventory.error = None
    with pytest.raises(UnknownService, match="Inventory"):
        get_service_url("third")


def test_a_malformed_answer_of_a_provider_in_python_says_what_is_wrong() -> None:
    inventory = Inventory()
    inventory.services["auth"] = [{"address": "a", "prot": 80}]
    set_discovery_provider(inventory)
    with pytest.raises(RegistryUnreachable, match="unknown key of an instance: prot; use url, "):
        get_service_url("auth")
    inventory.services["billing"] = [{"address": "a", "port": 99999}]
    with pytest.raises(RegistryUnreachable, match="99999"):
        get_service_url("billing")


def test_a_provider_in_python_may_be_async() -> None:
    class Async(ServiceDiscovery):
        async def get_service(self, service_name: str, default: Any = None) -> Any:
            return {"url": "http://async:1"} if service_name == "auth" else default

        async def get_services(self) -> Any:
            return {"auth": {}}

    set_discovery_provider(Async())
    assert get_service_url("auth") == "http://async:1"
    assert list(get_services()) == ["auth"]


def test_a_provider_in_python_can_be_registered_with() -> None:
    class Registering(Inventory):
        def register_service(self, service_name: str, service_data: Any) -> None:
            self.services[service_name] = [{"address": "me", "port": service_data["port"]}]

        def deregister_service(self, service_name: str) -> None:
            del self.services[service_name]

    provider = Registering()
    set_discovery_provider(provider)
    register_service("mine", {"port": 80, "meta": {"a": 1}})
    eventually(lambda: get_service_url("mine", "none") == "http://me:80")
    assert deregister_service("mine")
    assert provider.services == {}
    set_discovery_provider(Inventory())
    with pytest.raises(Unsupported):
        Inventory().register_service("mine", {"port": 80})


def test_a_name_can_be_given_to_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = Inventory()
    inventory.services["auth"] = [{"url": "http://inventory:1"}]
    register_discovery_provider("inventory", lambda: inventory)
    monkeypatch.setenv("SERVICE_DISCOVERY_PROVIDER", "inventory")
    assert get_service_url("auth") == "http://inventory:1"
    assert get_discovery_provider("inventory") is inventory


async def lookups(count: int) -> set[str]:
    return set(await asyncio.gather(*(aio.get_service_url("auth") for _ in range(count))))


def test_ten_thousand_concurrent_lookups_make_one_upstream_request() -> None:
    class Slow(Inventory):
        def get_instances(self, service_name: str) -> Any:
            time.sleep(0.05)
            return super().get_instances(service_name)

    inventory = Slow()
    inventory.refresh_interval = 60.0
    inventory.services["auth"] = [{"url": "http://auth:1"}]
    set_discovery_provider(inventory)
    threads = threading.active_count()
    assert asyncio.run(lookups(10_000)) == {"http://auth:1"}
    assert inventory.calls == 1
    assert threading.active_count() <= threads + 1
