"""Shared checks of feature networks: weights by hash before loading, input and output shapes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from colddiff.errors import CheckpointError, DataError


def checked_weights(
    metric: str, place: str, data: bytes, sha256: str, way_out: str = "download the file again"
) -> bytes:
    """``data``, read from ``place``; raises CheckpointError if its hash is not ``sha256``."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{metric}: {place} has {len(data)} bytes with sha256 {found}, expected {sha256}; "
            f"distances from other weights are not comparable: {way_out}"
        )
    return data


@contextmanager
def loading(metric: str, place: str) -> Iterator[None]:
    """Convert a loader's exceptions to one-line CheckpointErrors; ignore its format warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{metric}: {place} is not a network of its kind: {reason}") from None


def checked_images(metric: str, images: Tensor) -> Tensor:
    """``images``; raises DataError unless uint8 [B, C, H, W] with 1 or 3 channels."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"{metric}: expected uint8 images [B, C, H, W] with 1 or 3 channels, got "
            f"{images.dtype} {list(images.shape)}"
        )
    return images


def feature_rows(metric: str, network: Callable[[Tensor], object], batch: Tensor) -> Tensor:
    """Features of ``batch``, float64 [B, F] in host memory; DataError if the shape is wrong."""
    with torch.inference_mode():
        found = network(batch)
    if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(batch):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise DataError(
            f"{metric}: expected features [{len(batch)}, F] from its network, got {shape}"
        )
    return found.flatten(1).double().cpu()
