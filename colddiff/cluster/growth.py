"""Room for more workers of an elastic training while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ray._private.state import available_resources_per_node

ASKED_TWICE = 2
"""A machine that has room once may be about to be filled by what waits for it."""


class RoomForMore:
    """Whether the cluster of this process has had room for another worker, twice in a row.

    Args:
        wanted: what one worker reserves, by Ray's names.
        free: what is free by machine; default: asks the cluster, which takes milliseconds.
    """

    def __init__(
        self,
        wanted: Mapping[str, float],
        free: Callable[[], Mapping[str, Mapping[str, float]]] = available_resources_per_node,
    ) -> None:
        self._wanted, self._free, self._in_a_row = wanted, free, 0

    def __call__(self) -> bool:
        fits = any(
            all(machine.get(name, 0.0) >= count for name, count in self._wanted.items())
            for machine in self._free().values()
        )
        self._in_a_row = self._in_a_row + 1 if fits else 0
        return self._in_a_row >= ASKED_TWICE
