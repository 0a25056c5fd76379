"""A person's own images restored with a checkpoint, without a cluster: what `restore` does."""

from __future__ import annotations

from colddiff.restoration.files import ImageFile, found_images
from colddiff.restoration.given import GivenOmega
from colddiff.restoration.restore import Restoration, Restored
from colddiff.restoration.settings import RestoreSettings

__all__ = ["GivenOmega", "ImageFile", "Restoration", "RestoreSettings", "Restored", "found_images"]
