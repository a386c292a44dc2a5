"""The program in the wheel, and a stack of Python services that it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import eventually, free_port, get_json

EXAMPLES = Path(__file__).parent.parent / "examples"

STACK = """
name = "shop"

[waypost]
registry-port = {registry}
gateway = {gateway}
dashboard = false

[services.shop]
run = ["{python}", "fastapi_service.py", "{{port}}"]
dir = "{examples}"
port = 0
replicas = 3
register = "self"
ready = {{ http = "/health" }}

[services.stock]
run = ["{python}", "flask_service.py", "{{port}}"]
dir = "{examples}"
port = 0
register = "self"
ready = {{ http = "/health" }}

[services.caller]
run = ["{python}", "plain_script.py"]
dir = "{examples}"
after = ["shop", "stock"]
env = {{ PYTHONUNBUFFERED = "1" }}
"""


@pytest.fixture(autouse=True)
def own_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`waypost up` has a control socket, which is in this folder."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


def waypost(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "waypost", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=folder)


def test_the_program_is_in_the_package(tmp_path: Path) -> None:
    assert "waypost" in waypost(tmp_path, "--version").stdout
    script = Path(sys.executable).parent / "waypost"
    assert subprocess.run([script, "--version"], capture_output=True).returncode == 0
    wrong = waypost(tmp_path, "no-such-command")
    assert wrong.returncode != 0 and "no-such-command" in wrong.stderr


def test_up_check_starts_everything(tmp_path: Path) -> None:
    ports = [f"{name}={free_port()}" for name in ("registry", "gateway", "ui", "ai-models")]
    options = [option for port in ports for option in ("--port", port)]
    result = waypost(tmp_path, "up", "--check", *options)
    assert result.returncode == 0, result.stdout + result.stderr


def test_services_find_and_call_each_other_and_no_request_fails_when_one_is_killed(
    tmp_path: Path, run_program: Any
) -> None:
    registry, gateway = free_port(), free_port()
    stack = STACK.format(
        registry=registry, gateway=gateway, python=sys.executable, examples=EXAMPLES
    )
    (tmp_path / "waypost.toml").write_text(stack)
    up = run_program(None, "up", module="waypost")
    url = f"http://127.0.0.1:{gateway}/shop/order"

    def calls_by_name() -> Counter[str]:
        lines = [line for line in up.output().splitlines() if '{"succeeded"' in line]
        return Counter(json.loads(lines[-1][lines[-1].index("{") :])) if lines else Counter()

    def passing() -> int:
        path = "v1/health/service/shop?passing"
        return len(get_json(f"http://127.0.0.1:{registry}/{path}"))

    through_gateway: Counter[str] = Counter()
    stop = threading.Event()

    def call_through_gateway() -> None:
        while not stop.is_set():
            try:
                get_json(url)
                through_gateway["succeeded"] += 1
            except OSError as error:
                through_gateway[repr(error)] += 1

    eventually(lambda: calls_by_name()["succeeded"] > 100 and passing() == 3, up.output)
    killed: int = eventually(lambda: get_json(url))["pid"]
    caller = threading.Thread(target=call_through_gateway)
    caller.start()
    eventually(lambda: through_gateway["succeeded"] > 30)
    before, before_gateway = calls_by_name()["succeeded"], through_gateway["succeeded"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: calls_by_name()["succeeded"] > before + 300)
    eventually(lambda: through_gateway["succeeded"] > before_gateway + 100)
    # The runner restarts it.
    eventually(lambda: passing() == 3)
    stop.set()
    caller.join()
    assert list(through_gateway) == ["succeeded"], through_gateway
    assert "failed" not in calls_by_name(), up.output()
    print(f"calls by name: {calls_by_name()}, through the gateway: {through_gateway}")
    assert up.stop(signal.SIGINT) == 0, up.output()
