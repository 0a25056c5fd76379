"""Weights of a checkpoint, held against the network that they are for: complete, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from colddiff.errors import CheckpointError, SpecError
from colddiff.restorers import RESTORERS
from colddiff.spec import nearest
from colddiff.types import ImageShape

if TYPE_CHECKING:
    from torch import Tensor

Weights = Literal["ema", "model"]
NAMED = 3
"""Tensors that a message names."""


def fitting(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """``found`` as the tensors ``wanted``: the same names, shapes and dtypes, and finite.

    A floating dtype in which every value is exact in the wanted one is converted: nothing is lost.
    Raises CheckpointError naming ``where`` and the tensors that are missing, unknown, or differ.
    """
    problems = _names(found, wanted)
    fit: dict[str, Tensor] = {}
    for name in wanted.keys() & found.keys():
        problem = _problem(found[name], wanted[name])
        if problem is None:
            fit[name] = found[name].to(wanted[name].dtype)
        else:
            problems.append(f"{name} {problem}")
    if problems:
        shown = "; ".join(problems[:NAMED])
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise CheckpointError(
            f"{where}: the weights are not those of its network: {shown}{more}; use an intact copy "
            "of the checkpoint, or an earlier one with @step=N"
        )
    return {name: fit[name] for name in wanted}


def load_weights(
    network: torch.nn.Module, found: Mapping[str, Tensor], weights: Weights, where: str
) -> None:
    """Loads averaged (ema) or last (model) weights; raises CheckpointError unless they fit."""
    wanted = network.state_dict() if weights == "model" else ema_parameters(network, found)
    network.load_state_dict(fitting(found, wanted, where), strict=weights == "model")


def ema_parameters(network: torch.nn.Module, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``network`` that averaged weights hold: parameters, and buffers if found.

    The moving average is over parameters alone; an imported checkpoint holds the buffers as well.
    """
    parameters = dict(network.named_parameters())
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name in parameters or name in found
    }


def check_ema(found: Mapping[str, Tensor], job: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError if averaged weights do not fit the network that ``job`` describes.

    ``job`` is a checkpoint's, as stored. The network is built without weights. A kind that only a
    plugin knows, which is not loaded here, cannot be built: then the weights must not be empty.
    """
    restorer = job.get("restorer")
    kind = restorer.get("kind") if isinstance(restorer, Mapping) else None
    if not isinstance(kind, str) or kind not in RESTORERS:
        if not found:
            raise CheckpointError(f"{where}: holds no tensor")
        refuse_nonfinite(found, where)
        return
    try:
        size = int(job["image_size"])
        with torch.device("meta"):
            network = RESTORERS.parse(restorer).build(ImageShape(int(job["channels"]), size, size))
    except (KeyError, TypeError, ValueError, SpecError) as error:
        why = str(error)[:200]
        raise CheckpointError(f"{where}: its state.json describes no network ({why})") from None
    fitting(found, ema_parameters(network, found), where)


def check_resumed(
    tensors: Mapping[str, Mapping[str, Tensor]], network: torch.nn.Module, where: str
) -> None:
    """Raises CheckpointError unless model, ema and optimizer of a checkpoint fit ``network``."""
    parameters = dict(network.named_parameters())
    fitting(tensors["model"], network.state_dict(), f"{where}: model")
    fitting(tensors["ema"], parameters, f"{where}: ema")
    wanted = {
        f"{name}.{key}": torch.empty_like(parameter) if key != "step" else torch.empty(())
        for name, parameter in parameters.items()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    fitting(tensors["optimizer"], wanted, f"{where}: optimizer")


def refuse_nonfinite(found: Mapping[str, Tensor], where: str) -> None:
    """Raises CheckpointError naming a tensor that holds NaN or inf."""
    for name, tensor in found.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {name} holds NaN or inf")


def _names(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    problems = []
    if missing:
        problems.append(
            f"{len(missing)} of {len(wanted)} tensors are missing, such as {missing[0]}"
        )
    if unknown:
        known = nearest(unknown[0], missing)
        problems.append(f"{len(unknown)} tensors are unknown, such as {unknown[0]!r:.80}{known}")
    return problems


def _problem(found: Tensor, wanted: Tensor) -> str | None:
    if found.shape != wanted.shape:
        return f"has the shape {list(found.shape)}, not {list(wanted.shape)}"
    if found.dtype != wanted.dtype:
        floating = found.is_floating_point() and wanted.is_floating_point()
        if not floating or not bool((found.to(wanted.dtype).to(found.dtype) == found).all()):
            return f"is {_dtype(found)}, not {_dtype(wanted)}"
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        return "holds NaN or inf"
    return None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in host memory: training goes on while they are written."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def optimizer_tensors(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Adam's state: ``step``, ``exp_avg`` and ``exp_avg_sq`` of each parameter that had a step."""
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{named[id(parameter)]}.{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Sets what ``optimizer_tensors`` returned, on each parameter's own device."""
    for name, parameter in network.named_parameters():
        state = {key: tensors[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {
            # In the parameter's own memory layout: fused Adam iterates over both in parallel.
            key: torch.empty_like(parameter).copy_(value)
            if value.shape == parameter.shape
            else value.to(parameter.device)
            for key, value in state.items()
        }
