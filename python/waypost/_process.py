"""The registrations and threads of this process. Registrations end with the process, and a fork doesn't
copy threads."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any

from . import _waypost

os.register_at_fork(after_in_child=_waypost.after_fork_in_child)


class Registrations:
    """The instances that this process keeps registered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, _waypost.Registrar] = {}

    def add(self, registrar: _waypost.Registrar) -> str:
        """Keeps a registration until it is deregistered. Returns its id."""
        instance_id = registrar.instance.id
        with self._lock:
            earlier = self._by_id.pop(instance_id, None)
            self._by_id[instance_id] = registrar
        if earlier is not None and earlier.is_own:
            # It has the same id, so deregistering it would remove the new registration.
            earlier.abandon()
        return instance_id

    def discard(self, registrar: _waypost.Registrar) -> None:
        """Removes a registration without deregistering it."""
        with self._lock:
            for instance_id, other in list(self._by_id.items()):
                if other is registrar:
                    del self._by_id[instance_id]

    def get(self, instance_id: str) -> _waypost.Registrar | None:
        """The registration with this id."""
        with self._lock:
            return self._by_id.get(instance_id)

    def remove(self, service_name: str) -> list[_waypost.Registrar]:
        """Removes the registrations of a service. The caller has to deregister them."""
        with self._lock:
            removed = {
                instance_id: registrar
                for instance_id, registrar in self._by_id.items()
                if registrar.is_own and registrar.instance.service == service_name
            }
            for instance_id in removed:
                del self._by_id[instance_id]
        return list(removed.values())

    def deregister(self, service_name: str) -> int:
        """Deregisters the instances of a service. Returns how many there were."""
        removed = self.remove(service_name)
        _waypost.deregister_all(removed)
        return len(removed)

    def deregister_all(self) -> int:
        """Deregisters all instances. Returns how many there were."""
        with self._lock:
            removed = [registrar for registrar in self._by_id.values() if registrar.is_own]
            self._by_id.clear()
        _waypost.deregister_all(removed)
        return len(removed)

    def instances(self) -> list[_waypost.Instance]:
        """The registered instances."""
        with self._lock:
            own = [registrar for registrar in self._by_id.values() if registrar.is_own]
        return [registrar.instance for registrar in own]

    def _after_fork(self) -> None:
        # A thread of the parent process may have held the lock during the fork.
        self._lock = threading.Lock()
        self._by_id.clear()


registrations = Registrations()
os.register_at_fork(after_in_child=registrations._after_fork)


@atexit.register
def _end() -> None:
    try:
        registrations.deregister_all()
    except Exception:
        # The error has been logged, and the registry's checks will remove the instance.
        pass
    _waypost.shutdown()


def service_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a service with text as the values of its metadata, as registries have it."""
    result = {key: value for key, value in data.items() if value is not None}
    for key in ("meta", "metadata"):
        if isinstance(result.get(key), Mapping):
            result[key] = {name: _text(value) for name, value in result[key].items()}
    if "tags" in result:
        result["tags"] = [str(tag) for tag in result["tags"]]
    return result


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
