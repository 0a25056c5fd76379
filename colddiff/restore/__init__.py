"""Restores a user's image files with a checkpoint, without a cluster (`colddiff restore`)."""

from __future__ import annotations

from colddiff.restore.files import ImageFile, found_images
from colddiff.restore.omega_files import OmegaFiles
from colddiff.restore.restore import Restoration, Restored
from colddiff.restore.settings import RestoreSettings

__all__ = ["ImageFile", "OmegaFiles", "Restoration", "RestoreSettings", "Restored", "found_images"]
