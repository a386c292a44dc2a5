"""The exceptions. Each is a :class:`WaypostError`::

    WaypostError
    ├── NoUsableInstance         the provider has answered that there is none
    │   ├── UnknownService       it doesn't know the service
    │   ├── NoInstances          it knows the service, which has no instances
    │   └── NoneHealthy          all instances of the service are critical
    ├── RegistryUnreachable      no connection, and no earlier answer
    ├── Stale                    the last answer is older than SERVICE_DISCOVERY_MAX_STALE
    ├── TimedOut                 no answer in time
    ├── NotAuthorised            credentials are missing or invalid, or lack a permission
    ├── Rejected                 the registry refuses the request
    ├── Unsupported              the provider can't do this
    ├── InvalidArgument          also a ValueError
    └── ConfigError              a setting is not valid; also a ValueError
"""

from __future__ import annotations

from typing import Any


class WaypostError(Exception):
    """The base of all exceptions of this package."""

    #: The service that the call was about, if it was about one.
    service: str | None
    #: The provider that the error came from, with its address, if it came from one.
    provider: str | None
    #: The age in seconds of the answer that led to the error; ``None`` if there was no answer.
    age: float | None
    #: Whether the same call may succeed later, without a change of code or configuration.
    retryable: bool

    def __init__(
        self,
        message: str = "",
        *,
        service: str | None = None,
        provider: str | None = None,
        age: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.service = service
        self.provider = provider
        self.age = age
        self.retryable = retryable

    def __reduce__(self) -> Any:
        # The default calls the class with `args` only.
        return (type(self), self.args, self.__dict__)


class NoUsableInstance(WaypostError):
    """The provider has answered that the service has no instance that takes requests."""


class UnknownService(NoUsableInstance):
    """The provider doesn't know the service."""


class NoInstances(NoUsableInstance):
    """The service is known, but has no instances."""


class NoneHealthy(NoUsableInstance):
    """The service has instances, but all of them are critical."""


class RegistryUnreachable(WaypostError):
    """The registry can't be reached or gives no valid response, and there is no earlier answer."""


class Stale(WaypostError):
    """The provider has been failing for longer than ``SERVICE_DISCOVERY_MAX_STALE``."""


class TimedOut(WaypostError, TimeoutError):
    """No answer came in time."""


class NotAuthorised(WaypostError):
    """The registry refuses the request because valid credentials or a permission are missing."""


class Rejected(WaypostError):
    """The registry understood the request and rejected it."""


class Unsupported(WaypostError):
    """The provider doesn't support the operation."""


class InvalidArgument(WaypostError, ValueError):
    """An argument, such as the name of a service, is not valid."""


class ConfigError(WaypostError, ValueError):
    """A setting is not valid; the message names the variable, or the file and line."""
