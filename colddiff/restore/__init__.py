"""A person's own images restored with a checkpoint, without a cluster: what `restore` does."""

from __future__ import annotations

from colddiff.restore.files import ImageFile, found_images
from colddiff.restore.omega_files import GivenOmega
from colddiff.restore.restore import Restoration, Restored
from colddiff.restore.settings import RestoreSettings

__all__ = ["GivenOmega", "ImageFile", "Restoration", "RestoreSettings", "Restored", "found_images"]
