"""Makes the terminal of a degradation, fitting it to a data set if it is a mixture."""

from __future__ import annotations

from typing import Any

from colddiff.degradations import Degradation
from colddiff.ports import ShardSource
from colddiff.terminal import Gmm, Terminal, TerminalSpec, terminal_spec
from colddiff.terminals.features import terminal_features


def make_terminal(
    D: Degradation[Any], data: ShardSource | None, wanted: TerminalSpec | None = None
) -> Terminal | None:
    """D's own terminal, or ``wanted``; a mixture is fitted to ``data``.

    None if D has no terminal, or if it is a mixture and there is no ``data`` to fit it to.
    """
    spec = terminal_spec(D, wanted)
    if not isinstance(spec, Gmm):
        return None if spec is None else Terminal(spec)
    if data is None:
        return None
    from colddiff.terminals.sklearn_mixture import fit_mixture

    return Terminal(spec, fit_mixture(terminal_features(D, spec, data), spec.components))
