"""Calls of the network that several lists share: those of a common beginning, made once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from colddiff.sampling import Restore
from colddiff.types import Image, Severity
from colddiff.verbs.search.severities.lists import SeverityList

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 512 * 2**20


class Beginnings:
    """Numbers for the beginnings of lists: equal ones are the same trajectory up to a call of R.

    x_t depends on the sampler and on the severities above t alone. The first call, R(x_T, T), is
    that of every sampler.
    """

    def __init__(self) -> None:
        # By the beginning that is one call shorter: whole lists as keys would take their square.
        self._numbers: dict[tuple[int, str, int], int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, chosen: SeverityList) -> list[int]:
        """The beginnings of a list, one for each call of R."""
        found: list[int] = []
        for t in chosen.severities[:-1]:
            step = (found[-1], chosen.sampler, t) if found else (-1, "", t)
            found.append(self._numbers.setdefault(step, len(self._numbers)))
        return found


class SharedCalls:
    """Estimates R(x_t, t) by the steps that led to x_t, the latest used ``most_bytes`` of them.

    Where two lists begin alike, so do their trajectories, bit for bit.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._beginnings = Beginnings()
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self.calls_made = 0
        """Images that the network was called with."""

    def restore(self, R: Restore, chosen: SeverityList, batch: int) -> Restore:
        """R along ``chosen``, to be called at each of its severities but the last, in order."""
        beginnings = iter(self._beginnings.of(chosen))

        def shared(x_t: Image, t: Severity) -> Image:
            key = (batch, next(beginnings))
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            x0_hat = R(x_t, t)
            self.calls_made += len(x_t)
            self._keep(key, x0_hat)
            return x0_hat

        return shared

    def _keep(self, key: tuple[int, int], x0_hat: Image) -> None:
        self._kept[key] = x0_hat
        self._bytes += x0_hat.nbytes
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
