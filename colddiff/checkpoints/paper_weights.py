"""Loads network weights from the paper's own ``.pt`` checkpoints, without unpickling code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from colddiff.errors import CheckpointError, SpecError
from colddiff.machine.files import is_regular
from colddiff.restorers import Restorer

Weights = Literal["ema", "model"]

# The network is called denoise_fn in most folders of the paper's code, defade_fn in inpainting and
# restore_fn in snow and colour; DataParallel puts ``module.`` in front, and not all scripts use it.
NETWORK = re.compile(r"(?:module\.)*(?:denoise_fn|defade_fn|restore_fn)\.(?:module\.)*(?P<name>.+)")
NUM_NAMED = 3


def import_reference_checkpoint(
    path: str | Path, R: Restorer, *, weights: Weights = "ema"
) -> int | None:
    """Loads the network of a ``.pt`` checkpoint of the paper's code into ``R`` (PAPER 2).

    Such a file holds {'step', 'model', 'ema'}; the latter two are state dicts of the whole
    diffusion module, of which only the network is used. ``R`` is changed only if all of its tensors
    are present, of the right shape and finite.

    Args:
        path: a local file.
        R: built with the channels and widths the checkpoint was trained with.
        weights: ``ema``, which the paper evaluates, or ``model``.

    Returns:
        The optimizer step it was saved at, None if the file does not have it.

    Raises:
        CheckpointError: no such file, one with more than tensors (an unpickler that could run code
            is never used), not of the paper's code, or weights that do not fit ``R``; the first
            tensors that differ are named.
        SpecError: ``weights`` is neither.
    """
    if weights not in get_args(Weights):
        raise SpecError(f"weights: one of {', '.join(get_args(Weights))}, got {weights!r}")
    content = read_tensors(Path(path))
    if not isinstance(content, Mapping) or not isinstance(content.get(weights), Mapping):
        raise CheckpointError(
            f"{path}: not a checkpoint of the paper's code, which is {{'step', 'model', 'ema'}}; "
            f"{_summary(content)}"
        )
    found = {
        match["name"]: value
        for key, value in content[weights].items()
        if isinstance(key, str) and (match := NETWORK.fullmatch(key))
    }
    if not found:
        raise CheckpointError(
            f"{path}: {weights!r} holds no network (denoise_fn., defade_fn. or restore_fn.); "
            f"{_summary(content[weights])}"
        )
    if differences := _differences(R.state_dict(), found):
        raise CheckpointError(
            f"{path}: {weights!r} does not fit this {type(R).__name__}: {differences}; build it "
            "with the channels and widths the checkpoint was trained with"
        )
    R.load_state_dict(found)
    step = content.get("step")
    return int(step) if isinstance(step, int) else None


def read_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote; CheckpointError if it is not just tensors and containers."""
    if path.exists() and not is_regular(path):
        raise CheckpointError(f"{path}: is not a file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception:
        # A damaged or hostile file can raise anything. torch's own message advises
        # weights_only=False, which would run code in the file.
        raise CheckpointError(
            f"{path}: rejected, it is damaged or holds more than tensors and plain containers; "
            "no code in it was run"
        ) from None


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> str:
    both = [name for name in expected if name in found]
    dense = {name for name in both if _is_dense(found[name])}
    wrong_shape = [n for n in both if n in dense and found[n].shape != expected[n].shape]
    fitting = [n for n in both if n in dense and n not in wrong_shape]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "not a float tensor": [name for name in both if name not in dense],
        "another shape": [
            f"{name} {list(found[name].shape)} for {list(expected[name].shape)}"
            for name in wrong_shape
        ],
        "not finite": [name for name in fitting if not bool(torch.isfinite(found[name]).all())],
    }
    return ", ".join(f"{kind} {_first(names)}" for kind, names in kinds.items() if names)


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.is_floating_point()


def _first(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _summary(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"it holds {_first(map(str, content)) or 'nothing'}"
    return f"it holds a {type(content).__name__}"
