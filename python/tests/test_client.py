"""`ServiceDiscoveryClient` with and without asyncio: strategies, leases, outcomes."""

from __future__ import annotations

import asyncio
import email.message
import logging
import os
import pickle
import signal
import threading
import time
import urllib.error
from collections import Counter
from typing import Any

import httpx
import pytest
import requests
from support import DEADLINE, Registry, eventually, free_port
from test_discovery import Inventory

from waypost import Instance, ServiceDiscoveryClient, aio
from waypost.errors import InvalidArgument, NoneHealthy, UnknownService, WaypostError
from waypost.load_balancer import (
    ConsistentHashStrategy,
    LeastConnectionsStrategy,
    P2cPeakEwmaStrategy,
    RandomStrategy,
    RoundRobinStrategy,
    SmoothWeightedRoundRobinStrategy,
    Strategy,
    WeightedRandomStrategy,
)


def inventory(**versions: str) -> Inventory:
    """A provider of `auth` with an instance of each version."""
    provider = Inventory()
    provider.services["auth"] = [
        {"id": name, "address": name, "port": 80, "version": version}
        for name, version in versions.items()
    ]
    return provider


def picks(client: ServiceDiscoveryClient, count: int) -> Counter[str]:
    urls = (client.get_service_url("auth") for _ in range(count))
    return Counter(url.split("/")[2].split(":")[0] for url in urls)


def test_instances_and_urls(registry: Registry) -> None:
    for number in (1, 2):
        registry.register("target", 5000 + number, f"target-{number}")
    client = ServiceDiscoveryClient(registry_host="127.0.0.1", registry_port=registry.port)
    instances = client.discover_service("target")
    assert [(i.id, i.port, i.health) for i in instances] == [
        ("target-1", 5001, instances[0].health),
        ("target-2", 5002, instances[1].health),
    ]
    urls = {client.get_service_url("target", "api/resource?x=1") for _ in range(4)}
    assert urls == {f"http://127.0.0.1:500{n}/api/resource?x=1" for n in (1, 2)}
    assert list(client.get_services()) == ["consul", "target"][registry.kind == "embedded" :] or (
        "target" in client.get_services()
    )
    assert str(registry.port) in repr(client)


def test_a_client_registers_itself(registry: Registry) -> None:
    port = free_port()
    with ServiceDiscoveryClient("billing", port, service_data={"version": "1.2.0"}) as client:
        found = eventually(lambda: registry.instances("billing"))
        assert found[0]["Service"]["Port"] == port
        assert client.instance is not None and client.instance.version == "1.2.0"
    assert registry.instances("billing") == []
    ServiceDiscoveryClient("billing", port, auto_register=False)
    ServiceDiscoveryClient("billing")
    assert registry.instances("billing") == []


@pytest.mark.parametrize(
    "strategy",
    [
        RoundRobinStrategy(),
        RandomStrategy(),
        WeightedRandomStrategy(),
        SmoothWeightedRoundRobinStrategy(),
        LeastConnectionsStrategy(),
        P2cPeakEwmaStrategy(),
        "round_robin",
        "custom",
    ],
    ids=str,
)
def test_each_strategy_uses_all_instances(strategy: str | Strategy) -> None:
    provider = inventory(a="1", b="1", c="1")
    client = ServiceDiscoveryClient(provider=provider, load_balancer_strategy=strategy)
    assert set(picks(client, 200)) == {"a", "b", "c"}


def test_an_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="best.*round_robin, "):
        ServiceDiscoveryClient(provider=inventory(a="1"), load_balancer_strategy="best")
    client = ServiceDiscoveryClient(provider=inventory(a="1"))
    with pytest.raises(TypeError, match="not a strategy.*WeightedRandomStrategy"):
        client.load_balancer.strategy = "best"  # type: ignore[assignment]


def test_a_weight_function_decides_the_shares() -> None:
    client = ServiceDiscoveryClient(provider=inventory(old="1.0.0", new="2.0.0", off="0"))
    weights = {"2.0.0": 10.0, "1.0.0": 5.0, "0": 0.0}
    client.load_balancer.strategy = WeightedRandomStrategy(lambda i: weights[i.version or ""])
    counted = picks(client, 3000)
    assert set(counted) == {"old", "new"}
    assert 1.6 < counted["new"] / counted["old"] < 2.5
    assert isinstance(client.load_balancer.strategy, WeightedRandomStrategy)


def test_a_weight_function_that_raises_is_logged_and_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(instance: Instance) -> float:
        raise KeyError("no weight")

    client = ServiceDiscoveryClient(provider=inventory(a="1", b="1"))
    with caplog.at_level(logging.ERROR, "waypost"):
        client.load_balancer.strategy = WeightedRandomStrategy(broken)
        assert set(picks(client, 100)) == {"a", "b"}
        eventually(lambda: "KeyError: 'no weight'" in caplog.text)
    assert "weight function" in caplog.text


def test_a_weight_function_never_deadlocks_with_lookups() -> None:
    provider = inventory(**{f"i{n}": "1" for n in range(20)})
    provider.refresh_interval = 0.01

    def slow(instance: Instance) -> float:
        time.sleep(0.0002)
        return 1.0

    client = ServiceDiscoveryClient(provider=provider)
    client.load_balancer.strategy = WeightedRandomStrategy(slow)
    end = time.monotonic() + 1.0

    def look_up() -> None:
        while time.monotonic() < end:
            client.get_service_url("auth")
            provider.services["auth"] = provider.services["auth"][::-1]
            client.discover_service("auth")

    threads = [threading.Thread(target=look_up, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not any(thread.is_alive() for thread in threads)


def test_the_same_key_gets_the_same_instance() -> None:
    client = ServiceDiscoveryClient(
        provider=inventory(a="1", b="1", c="1"), load_balancer_strategy=ConsistentHashStrategy()
    )

    def of(key: str) -> str:
        with client.pick("auth", key=key) as endpoint:
            return endpoint.id

    owners = {key: of(key) for key in map(str, range(50))}
    assert set(owners.values()) == {"a", "b", "c"}
    assert all(of(key) == owner for key, owner in owners.items())


def in_flight(client: ServiceDiscoveryClient) -> int:
    return sum(i["in_flight"] for i in client.explain("auth")["instances"])


def test_a_lease_counts_its_request_until_it_is_closed() -> None:
    client = ServiceDiscoveryClient(provider=inventory(a="1"))
    with client.pick("auth") as endpoint:
        assert (endpoint.id, endpoint.url_for("x")) == ("a", "http://a:80/x")
        assert in_flight(client) == 1
    assert in_flight(client) == 0
    assert client.explain("auth")["instances"][0]["succeeded"] == 1
    lease = client.pick("auth")
    del lease
    assert in_flight(client) == 0


def test_exceptions_of_a_request_are_failures_and_others_are_not() -> None:
    client = ServiceDiscoveryClient(provider=inventory(a="1"))

    def failed() -> int:
        return int(client.explain("auth")["instances"][0]["failed"])

    for error, counts in [(ConnectionResetError(), 1), (KeyError(), 1), (TimeoutError(), 2)]:
        with pytest.raises(type(error)):
            with client.pick("auth"):
                raise error
        assert failed() == counts, error


def test_an_error_status_counts_by_its_status() -> None:
    client = ServiceDiscoveryClient(provider=inventory(a="1"))

    def counts() -> tuple[int, int]:
        [instance] = client.explain("auth")["instances"]
        return instance["succeeded"], instance["failed"]

    def of_httpx(status: int) -> Exception:
        request = httpx.Request("GET", "http://a")
        response = httpx.Response(status, request=request)
        return httpx.HTTPStatusError("", request=request, response=response)

    def of_requests(status: int) -> Exception:
        response = requests.Response()
        response.status_code = status
        return requests.HTTPError(response=response)

    def of_urllib(status: int) -> Exception:
        return urllib.error.HTTPError("http://a", status, "", email.message.Message(), None)

    for number, make in enumerate([of_httpx, of_requests, of_urllib], start=1):
        for status in (404, 500):
            with pytest.raises(type(make(status))):
                with client.pick("auth"):
                    raise make(status)
        assert counts() == (number, number), make


def test_an_instance_that_fails_is_left_out() -> None:
    client = ServiceDiscoveryClient(provider=inventory(a="1", b="1", c="1", d="1"))
    for _ in range(40):
        with client.pick("auth") as endpoint:
            if endpoint.id == "b":
                endpoint.failed()
    eventually(lambda: "b" not in picks(client, 100))


def test_an_overloaded_instance_gets_no_requests_for_a_while() -> None:
    client = ServiceDiscoveryClient(provider=inventory(a="1", b="1", c="1", d="1"))
    # The first picks may come from two rotations, so four of them needn't reach all four instances.
    is_overloaded = False
    while not is_overloaded:
        with client.pick("auth") as endpoint:
            is_overloaded = endpoint.id == "c"
            endpoint.responded(503 if is_overloaded else 200, "60")
    eventually(lambda: "c" not in picks(client, 100))
    with client.pick("auth") as endpoint, pytest.raises(ValueError, match="retry_after"):
        endpoint.rejected(-1)
    with client.pick("auth") as endpoint, pytest.raises(ValueError, match="HTTP status"):
        endpoint.responded(9)


def test_waiting_for_a_service(registry: Registry) -> None:
    client = ServiceDiscoveryClient()
    with pytest.raises(UnknownService):
        client.wait_for("late", timeout=0.1)
    threading.Timer(0.2, lambda: registry.register("late", 1)).start()
    client.wait_for("late", timeout=DEADLINE)
    assert client.get_service_url("late") == "http://127.0.0.1:1"


def test_asyncio_has_the_same_client(registry: Registry) -> None:
    registry.register("auth", 5001)

    async def run() -> None:
        port = free_port()
        async with aio.ServiceDiscoveryClient("asynchronous", port) as client:
            await client.wait_for("asynchronous", DEADLINE)
            assert await client.get_service_url("auth", "/x") == "http://127.0.0.1:5001/x"
            assert [i.port for i in await client.discover_service("auth")] == [5001]
            with await client.pick("auth") as endpoint:
                assert endpoint.port == 5001
            assert "auth" in await client.get_services()
            assert (await client.explain("auth"))["service"] == "auth"
            with pytest.raises(UnknownService):
                await client.get_service_url("nobody")
        assert (await aio.get_service("auth"))["port"] == 5001
        assert "auth" in await aio.get_services()
        assert await aio.get_service_url("nobody", "http://default") == "http://default"
        await aio.register_service("other", {"port": port}, wait=DEADLINE)
        assert registry.instances("other")
        assert await aio.deregister_service("other")

    asyncio.run(run())
    assert registry.instances("asynchronous") == []


def test_a_cancelled_lookup_ends_and_the_loop_continues() -> None:
    class Slow(Inventory):
        def get_instances(self, service_name: str) -> Any:
            answer.wait(DEADLINE)
            return [{"url": "http://slow:1"}]

    answer = threading.Event()
    client = aio.ServiceDiscoveryClient(provider=Slow())

    async def run() -> None:
        lookup = asyncio.ensure_future(client.get_service_url("auth"))
        await asyncio.sleep(0.05)
        lookup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lookup
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.get_service_url("auth"), 0.05)
        answer.set()
        assert await client.get_service_url("auth") == "http://slow:1"

    asyncio.run(run())


def test_other_threads_run_while_one_waits() -> None:
    class Slow(Inventory):
        def get_instances(self, service_name: str) -> Any:
            blocked.wait(DEADLINE)
            return [{"url": "http://slow:1"}]

    blocked = threading.Event()
    client = ServiceDiscoveryClient(provider=Slow())
    waiting = threading.Thread(target=client.get_service_url, args=("auth",))
    waiting.start()
    # If the lookup held the GIL, this line would never be reached.
    blocked.set()
    waiting.join(DEADLINE)
    assert not waiting.is_alive()


def test_ctrl_c_ends_a_lookup_that_waits(run_program: Any) -> None:
    program = run_program("""
import signal
import threading
from waypost import ServiceDiscoveryClient
from waypost.discovery import ServiceDiscovery

class Stuck(ServiceDiscovery):
    def get_service(self, name, default=None):
        print("asked", flush=True)
        threading.Event().wait(3)
    def get_services(self):
        return {}

# A job in the background inherits from its shell that the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    ServiceDiscoveryClient(provider=Stuck()).get_service_url("auth")
except KeyboardInterrupt:
    print("interrupted", flush=True)
""")
    eventually(lambda: "asked" in program.output())
    program.process.send_signal(signal.SIGINT)
    eventually(lambda: "interrupted" in program.output())
    assert program.process.wait(DEADLINE) == 0, program.output()


def test_a_client_made_before_a_fork_works_after_it(registry: Registry) -> None:
    registry.register("auth", 5001)
    client = ServiceDiscoveryClient("parent", free_port())
    client.load_balancer.strategy = WeightedRandomStrategy(lambda instance: 1.0)
    assert client.get_service_url("auth") == "http://127.0.0.1:5001"
    eventually(lambda: registry.instances("parent"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with client.pick("auth") as endpoint:
                url = endpoint.url
            asynchronous = asyncio.run(aio.get_service_url("auth"))
            os.write(writing, f"{url} {asynchronous} {client.get_services()['auth'].url}".encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as output:
        assert output.read() == " ".join(["http://127.0.0.1:5001"] * 3)
    os.waitpid(child, 0)
    # The end of the child does not deregister the parent's instance.
    assert registry.instances("parent")
    client.close()
    assert registry.instances("parent") == []


def test_exceptions_can_be_pickled() -> None:
    client = ServiceDiscoveryClient(provider=inventory(a="1"))
    with pytest.raises(UnknownService) as caught:
        client.get_service_url("nobody")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.service, copy.retryable) == (str(caught.value), "nobody", False)


def test_an_instance_is_readable() -> None:
    provider = Inventory()
    provider.services["auth"] = [
        {"id": "a-1", "url": "https://a:1/v2", "tags": ["x"], "meta": {"k": "v"}, "zone": "eu",
         "weight": 3, "version": "1", "ports": {"admin": 9}, "health": "warning"}
    ]
    [instance] = ServiceDiscoveryClient(provider=provider).discover_service("auth")
    assert (instance.scheme, instance.address, instance.path_prefix) == ("https", "a", "/v2")
    assert (instance.tags, instance.meta, instance.ports) == (["x"], {"k": "v"}, {"admin": 9})
    assert (instance.zone, instance.weight, instance.health) == ("eu", 3, "warning")
    assert instance == ServiceDiscoveryClient(provider=provider).discover_service("auth")[0]
    assert "a-1" in repr(instance) and hash(instance) == hash(instance)
    provider.services["auth"][0]["health"] = "critical"
    with pytest.raises(NoneHealthy):
        ServiceDiscoveryClient(provider=provider).pick("auth")
    assert issubclass(NoneHealthy, WaypostError)
