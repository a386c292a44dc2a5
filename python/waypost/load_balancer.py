"""Load balancing strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from . import _waypost
from ._waypost import Instance

__all__ = [
    "ConsistentHashStrategy",
    "LeastConnectionsStrategy",
    "LoadBalancer",
    "NamedStrategy",
    "P2cPeakEwmaStrategy",
    "RandomStrategy",
    "RoundRobinStrategy",
    "SmoothWeightedRoundRobinStrategy",
    "Strategy",
    "WeightedRandomStrategy",
]


class Strategy(ABC):
    """Chooses an instance from those that are healthy and not ejected."""

    @abstractmethod
    def _apply(self, client: _waypost.Client) -> None: ...


class NamedStrategy(Strategy):
    """A strategy by its name in a configuration, such as ``least_connections``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _apply(self, client: _waypost.Client) -> None:
        client.use_strategy_named(self.name)

    def __repr__(self) -> str:
        return f"<strategy {self.name}>"


class RoundRobinStrategy(NamedStrategy):
    """Each instance in turn."""

    def __init__(self) -> None:
        super().__init__("round_robin")


class SmoothWeightedRoundRobinStrategy(NamedStrategy):
    """Each instance in turn, in proportion to its weight in the registry."""

    def __init__(self) -> None:
        super().__init__("smooth_weighted_round_robin")


class RandomStrategy(NamedStrategy):
    """A random instance."""

    def __init__(self) -> None:
        super().__init__("random")


class LeastConnectionsStrategy(NamedStrategy):
    """The instance with the fewest requests in flight for its weight. Requests are those whose
    :class:`~waypost.Lease` is open."""

    def __init__(self) -> None:
        super().__init__("least_connections")


class P2cPeakEwmaStrategy(NamedStrategy):
    """The better of two random instances by latency and requests in flight. Both come from leases."""

    def __init__(self) -> None:
        super().__init__("p2c_peak_ewma")


class WeightedRandomStrategy(NamedStrategy):
    """A random instance, with a probability in proportion to its weight.

    With a function, its result for an instance is the weight. It is called when instances change, not
    for each pick. A weight of 0 means that the instance is not used while there is another. If the
    function raises, the exception is logged and the weights in the registry are used.
    """

    def __init__(self, weight_function: Callable[[Instance], float] | None = None) -> None:
        super().__init__("weighted_random")
        if weight_function is not None and not callable(weight_function):
            raise TypeError(f"{weight_function!r} is not a function; it gets an instance")
        self.weight_function = weight_function

    def _apply(self, client: _waypost.Client) -> None:
        if self.weight_function is None:
            super()._apply(client)
        else:
            client.use_weights_of(self.weight_function)


class ConsistentHashStrategy(NamedStrategy):
    """The same instance for the same key, as long as the instance exists; see ``key`` of
    :meth:`ServiceDiscoveryClient.pick <waypost.client.ServiceDiscoveryClient.pick>`.

    ``bound`` limits the requests in flight at an instance to this multiple of the average; its other
    keys are passed on. 1.25 is a usual value; there is no limit by default.
    """

    def __init__(self, bound: float = float("inf")) -> None:
        super().__init__("consistent_hash")
        self.bound = bound

    def _apply(self, client: _waypost.Client) -> None:
        client.use_consistent_hash(self.bound)


class LoadBalancer:
    """The load balancer of a client. Set :attr:`strategy` to use another strategy: requests in flight,
    latencies and ejections are kept."""

    def __init__(self, client: _waypost.Client, strategy: Strategy | None) -> None:
        self._client = client
        self._strategy = strategy
        if strategy is not None:
            strategy._apply(client)

    @property
    def strategy(self) -> Strategy | None:
        """The strategy; ``None`` if it is the one that the environment sets, by default round robin."""
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        if not isinstance(strategy, Strategy):
            raise TypeError(
                f"{strategy!r} is not a strategy; use one of waypost.load_balancer, such as "
                "WeightedRandomStrategy"
            )
        strategy._apply(self._client)
        self._strategy = strategy
