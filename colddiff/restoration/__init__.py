"""Restores a user's image files with a checkpoint, without a cluster (`colddiff restore`)."""

from __future__ import annotations

from colddiff.restoration.files import ImageFile, found_images
from colddiff.restoration.omega_files import OmegaBeside, OmegaFiles
from colddiff.restoration.restore import Restoration, Restored
from colddiff.restoration.settings import RestoreSettings

__all__ = [
    "ImageFile",
    "OmegaBeside",
    "OmegaFiles",
    "Restoration",
    "RestoreSettings",
    "Restored",
    "found_images",
]
