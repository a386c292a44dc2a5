"""Keeps a server registered while it serves, and shuts down in an order that loses no request.

At SIGTERM a server stops accepting connections at once, while clients still have its address. So the
signal is delayed: readiness fails, the instance is deregistered, requests are served until all clients
have seen that, and only then does the server get the signal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from . import _waypost
from ._process import registrations, service_data

logger = logging.getLogger("waypost")

#: How often to check whether the server accepts connections, in seconds.
_PROBE_INTERVAL = 0.05

#: After this time the server is registered even if its port can't be reached from here, for example
#: behind a socket or a port mapping. The registry's check still decides whether it gets requests.
_PROBE_LIMIT = 10.0


class Lifecycle:
    """The registration of one server in this process."""

    def __init__(
        self,
        client: Callable[[], _waypost.Client],
        service_name: str,
        data: Mapping[str, Any],
        health: _waypost.HealthChecks,
        propagation: float,
    ) -> None:
        self.service_name = service_name
        self.data = service_data(data)
        self.health = health
        self.propagation = propagation
        self._client = client
        self._lock = threading.Lock()
        self._ending = threading.Lock()
        self._registrar: _waypost.Registrar | None = None
        self._group: _Group | None = None
        self._server_ended = threading.Event()
        self._ended = False

    @property
    def registrar(self) -> _waypost.Registrar | None:
        """The registration, once it has begun and unless the provider can't register services."""
        return self._registrar

    def start_when_serving(self) -> None:
        """Registers when the port accepts connections."""
        self._ended = False
        self._server_ended.clear()
        self.health.set_ready(True)
        name = f"waypost-register-{self.service_name}"
        threading.Thread(target=self._wait_and_register, name=name, daemon=True).start()

    def _wait_and_register(self) -> None:
        deadline = time.monotonic() + _PROBE_LIMIT
        while not _accepts(self.data.get("address"), int(self.data["port"])):
            if self._ended:
                return
            if time.monotonic() > deadline:
                logger.warning(
                    "nothing accepts connections at port %s after %.0f s; registering %s all the same",
                    self.data["port"],
                    _PROBE_LIMIT,
                    self.service_name,
                )
                break
            time.sleep(_PROBE_INTERVAL)
        try:
            self.register()
        except Exception:
            logger.exception("can't register %s", self.service_name)

    def register(self) -> None:
        """Registers now."""
        with self._lock:
            if self._ended or self._registrar is not None:
                return
            data = json.dumps(self.data)
            registrar = self._client().register(self.service_name, data, self.health)
            if registrar is not None:
                self._group = _Group(f"{self._client().describe()} {registrar.instance.id}")
                self._registrar = registrar
                registrations.add(registrar)

    def end_gracefully(self) -> None:
        """Ends the registration, and waits until clients have seen it or the server has ended."""
        if self.end():
            self._server_ended.wait(self.propagation)

    def server_ended(self) -> None:
        """Ends the registration of a server that no longer accepts connections."""
        self._server_ended.set()
        self.end()

    def end(self) -> bool:
        """Fails readiness and deregisters. Returns whether to wait until clients have seen it. A second
        call waits for the first."""
        with self._ending:
            return self._end()

    def _end(self) -> bool:
        with self._lock:
            self._ended = True
            registrar, self._registrar = self._registrar, None
            group, self._group = self._group, None
        self.health.set_ready(False)
        if registrar is None or not registrar.is_own:
            return False
        registrations.discard(registrar)
        if group is not None and not group.leave():
            # Other workers of the server listen on the same port and keep the instance registered.
            registrar.abandon()
            return False
        try:
            registrar.deregister()
        except Exception:
            # The library has logged it. Clients will see that the health check fails.
            pass
        return True


def _accepts(address: str | None, port: int) -> bool:
    try:
        socket.create_connection((address or "127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


class _Group:
    """The processes of this machine that have registered one instance, such as a server's workers.
    Each holds a shared lock on a file; the last one deregisters."""

    def __init__(self, instance: str) -> None:
        digest = hashlib.sha256(instance.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"waypost-{os.getuid()}-{digest}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._path = path
        while True:
            try:
                self._file = os.open(path, flags, 0o600)
            except OSError as error:
                # Somebody else's file, or a folder that can't be written to.
                logger.warning(
                    "can't open %s (%s): each worker deregisters the instance of all", path, error
                )
                self._file = -1
                return
            fcntl.flock(self._file, fcntl.LOCK_SH)
            if _is_at(self._file, path):
                return
            # The last process of an earlier group has removed the file meanwhile.
            os.close(self._file)

    def leave(self) -> bool:
        """Leaves the group. Returns whether it was the last member."""
        if self._file < 0:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink(missing_ok=True)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(self._file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


class HeldSignals:
    """Delays SIGTERM and SIGINT until a function has returned, which runs on a separate thread while the
    server keeps running. A second signal is not delayed."""

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before
        self._previous: dict[int, Any] = {}
        self._started = False

    def install(self) -> None:
        """Installs the handlers. Only the main thread can; elsewhere this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(number)
            if previous in (signal.SIG_IGN, None, signal.default_int_handler):
                # In a plain program, Ctrl-C raises KeyboardInterrupt; it deregisters at its end.
                continue
            if getattr(previous, "__self__", None) is self:
                continue
            self._previous[number] = previous
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._started:
            self._started = True
            thread = threading.Thread(target=self._run, args=(number,), name="waypost-end")
            # The end of the program doesn't wait for it: a second signal ends the program now.
            thread.daemon = True
            thread.start()
            return
        previous = self._previous.get(number, signal.SIG_DFL)
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _run(self, number: int) -> None:
        try:
            self._before()
            if self._previous.get(number) == signal.SIG_DFL:
                # The signal will end the program at once, without the functions of `atexit`.
                registrations.deregister_all()
        except Exception:
            logger.exception("the end of the registration failed")
        os.kill(os.getpid(), number)
