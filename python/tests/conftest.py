"""Fixtures: registries, and programs that are stopped at the end of their test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Program, Registry

from waypost import discovery


@pytest.fixture(params=["embedded", "consul"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Registry]:
    """A registry, set as the provider in the environment."""
    registry = Registry(request.param, tmp_path)
    registry.start()
    monkeypatch.setenv("SERVICE_REGISTRY_HOST", "127.0.0.1")
    monkeypatch.setenv("SERVICE_REGISTRY_PORT", str(registry.port))
    yield registry
    registry.kill()


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The embedded registry, for tests that work the same with any registry."""
    registry = Registry("embedded", tmp_path)
    registry.start()
    monkeypatch.setenv("SERVICE_REGISTRY_HOST", "127.0.0.1")
    monkeypatch.setenv("SERVICE_REGISTRY_PORT", str(registry.port))
    yield registry
    registry.kill()


@pytest.fixture(autouse=True)
def fresh_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The functions of `waypost.discovery` choose their provider anew in each test."""
    monkeypatch.setattr(discovery, "_current", None)
    monkeypatch.setattr(discovery, "_provider", None)
    yield
    discovery.deregister_all_services()


@pytest.fixture
def run_program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts Python programs: from source text, or `python -m MODULE ARGS`."""
    programs: list[Program] = []

    def run(source: str | None = None, *args: str, module: str | None = None, **env: str) -> Program:
        number = len(programs)
        log = tmp_path / f"program{number}.log"
        command = [sys.executable, "-X", "faulthandler"]
        if module is not None:
            command += ["-m", module]
        else:
            file = tmp_path / f"program{number}.py"
            file.write_text(source or "")
            command += [str(file)]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, *args],
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=tmp_path,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            )
        programs.append(Program(process, log))
        return programs[-1]

    yield run
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait()
