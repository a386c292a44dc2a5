"""The program in the wheel, and services that find each other through `waypost up`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import Program, eventually, free_port, get_json

EXAMPLES = Path(__file__).parent.parent / "examples"


def waypost(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "waypost", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def ports_of_up() -> dict[str, int]:
    return {name: free_port() for name in ("registry", "gateway", "ui", "ai-models")}


def as_arguments(ports: dict[str, int]) -> list[str]:
    return [argument for name, port in ports.items() for argument in ("--port", f"{name}={port}")]


def test_the_program_is_in_the_package(tmp_path: Path) -> None:
    assert "waypost" in waypost("--version", cwd=tmp_path).stdout
    script = Path(sys.executable).parent / "waypost"
    assert subprocess.run([script, "--version"], capture_output=True).returncode == 0
    wrong = waypost("no-such-command", cwd=tmp_path)
    assert wrong.returncode != 0 and "no-such-command" in wrong.stderr


def test_up_check_starts_everything(tmp_path: Path) -> None:
    result = waypost("up", "--check", *as_arguments(ports_of_up()), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_services_find_and_call_each_other_and_one_that_is_killed_costs_no_request(
    run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = ports_of_up()
    monkeypatch.setenv("SERVICE_REGISTRY_HOST", "127.0.0.1")
    monkeypatch.setenv("SERVICE_REGISTRY_PORT", str(ports["registry"]))
    up = run_program(None, "up", *as_arguments(ports), module="waypost")
    registry = f"http://127.0.0.1:{ports['registry']}"
    gateway = f"http://127.0.0.1:{ports['gateway']}"

    def passing(service: str) -> int:
        return len(get_json(f"{registry}/v1/health/service/{service}?passing"))

    eventually(lambda: passing("ai-models"), up.output())
    source = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    shops: list[Program] = [
        run_program(source["fastapi_service"], str(free_port())) for _ in range(3)
    ]
    run_program(source["flask_service"], str(free_port()))
    eventually(lambda: passing("shop") == 3 and passing("stock") == 1)

    script = run_program(source["plain_script"])
    through_gateway: Counter[str] = Counter()
    stop = threading.Event()

    def call_through_gateway() -> None:
        while not stop.is_set():
            try:
                get_json(f"{gateway}/shop/order")
                through_gateway["succeeded"] += 1
            except OSError as error:
                through_gateway[repr(error)] += 1

    eventually(lambda: get_json(f"{gateway}/shop/order"))
    caller = threading.Thread(target=call_through_gateway)
    caller.start()

    def succeeded() -> int:
        lines = [line for line in script.output().splitlines() if line.startswith("{")]
        return int(json.loads(lines[-1]).get("succeeded", 0)) if lines else 0

    eventually(lambda: succeeded() > 100)
    shops[0].process.kill()
    before = succeeded()
    through_before = through_gateway["succeeded"]
    eventually(lambda: succeeded() > before + 300)
    eventually(lambda: through_gateway["succeeded"] > through_before + 100)
    # A second one ends gracefully.
    shops[1].stop()
    before = succeeded()
    eventually(lambda: succeeded() > before + 200)
    stop.set()
    caller.join()
    assert list(through_gateway) == ["succeeded"], through_gateway
    assert "failed" not in script.output(), script.output()
    print(f"calls by name: {succeeded()}, through the gateway: {through_gateway['succeeded']}")
    assert up.stop(signal.SIGINT) == 0, up.output()
