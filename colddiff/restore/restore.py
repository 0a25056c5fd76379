"""Restoring a person's own images: a PNG for each file, a function of that file alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from colddiff.checkpoints.references import LoadedCheckpoint
from colddiff.data.pil_images import Pixels, decode_image, encode_png
from colddiff.degradations.base import DrawImages
from colddiff.errors import DataError, SpecError
from colddiff.restore.files import ImageFile, conformed, read_picture
from colddiff.restore.forward import Forward, Outcome
from colddiff.restore.omega_files import SUFFIX, GivenOmega, Row, save_row
from colddiff.restore.results import Results, draw_strip, to_pixels
from colddiff.restore.scores import Comparison, References, Score
from colddiff.restore.settings import RestoreSettings
from colddiff.rng import stream
from colddiff.spec.plugins import plugin_that_brought
from colddiff.stores.local_store import LocalStore
from colddiff.transforms import normalise
from colddiff.types import Image, ImageShape

State = Literal["restored", "skipped", "failed"]
Progress = Callable[[int, int], None]
MAX_SHAPES = 4
NO_MEMORY = ("out of memory", "can't allocate", "not enough memory")
DEGRADED = ".degraded.png"


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one image; ``comparisons`` by severity, where there is a reference."""

    image: Path
    output: Path
    state: State
    error: str = ""
    comparisons: Mapping[int, Comparison] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Item:
    """An image that waits for its batch."""

    file: ImageFile
    pixels: Pixels
    omega: Row
    record: Mapping[str, Any]
    reference: Pixels | None

    @property
    def shape(self) -> ImageShape:
        height, width, channels = self.pixels.shape
        return ImageShape(channels, height, width)

    @property
    def image(self) -> Image:
        return normalise(torch.from_numpy(self.pixels.transpose(2, 0, 1).copy()))


class Restoration:
    """Restores image files with a checkpoint into a folder.

    Args:
        checkpoint: R, D and the shape they were trained for.
        settings: what is done to each image.
        out: the folder; results that are there already and were made from the same are kept.
        omega: what is random in D, where it is given; with ``settings.degrade`` it is drawn for
            each file from a stream of its own otherwise, and saved beside the result.
        references: the images that results are compared with; with ``settings.degrade`` the
            clean images are, otherwise.
        images: draws from the second set where D mixes one in.
        device: where R runs.
        on_progress: hears (steps done, steps in all), a step being one estimate of one image.

    Raises SpecError for settings that D cannot mean, or an omega that nobody can know.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        settings: RestoreSettings,
        out: Path,
        *,
        omega: GivenOmega | None = None,
        references: References | None = None,
        images: DrawImages | None = None,
        device: torch.device | str = "cpu",
        on_progress: Progress = lambda done, total: None,
    ) -> None:
        D = checkpoint.degradation
        settings.check(D)
        if omega is None:
            settings.refuse_unknown_omega(D)
        self.checkpoint, self.settings = checkpoint, settings
        self.starts = settings.starts(D.num_timesteps)
        self.results = Results(LocalStore(out), self.record(), settings.severity == "all")
        self._omega, self._references, self._images = omega, references, images
        self._device, self._on_progress = torch.device(device), on_progress
        self._forwards: dict[ImageShape, Forward] = {}
        self._done = self._total = 0

    def record(self) -> dict[str, Any]:
        """What decides a result besides its image and omega, JSON-ready."""
        settings = self.settings
        severity = settings.severity if settings.severity == "all" else self.starts[0]
        record: dict[str, Any] = {
            "checkpoint": self.checkpoint.address.weights_sha256,
            "severity": severity,
            "sampler": settings.sampler,
            "severities": settings.severities,
            "degrade": settings.degrade,
            "batch_size": settings.batch_size,
            "fit": settings.fit,
        }
        if (plugin := plugin_that_brought("sampler", settings.sampler)) is not None:
            record["sampler_sha256"] = plugin.sha256
        if settings.degrade and self.checkpoint.degradation.omega_names:
            record["seed"] = settings.seed
        return record

    def run(self, files: Sequence[ImageFile]) -> list[Restored]:
        """What became of each file, in their order; a bad one does not keep the others back.

        Raises SpecError where a result is in the way that was made with other settings.
        """
        existing = self.results.existing(files, self.settings.overwrite)
        self._total = self._steps() * sum(file.name not in existing for file in files)
        found: dict[str, Restored] = {}
        waiting: dict[ImageShape, list[_Item]] = {}
        for file in files:
            try:
                item = self._prepared(file)
                if file.name in existing:
                    found[file.name] = self._skipped(item, existing[file.name])
                    continue
                rows = self._forward(item.shape).rows
            except (DataError, SpecError) as error:
                found[file.name] = self._failed(file, str(error))
                continue
            batch = waiting.setdefault(item.shape, [])
            batch.append(item)
            if len(batch) == rows:
                found |= self._restored(waiting.pop(item.shape))
        for batch in waiting.values():
            found |= self._restored(batch)
        return [found[file.name] for file in files]

    def _steps(self) -> int:
        return sum(len(self.settings.steps(start)) - 1 for start in self.starts)

    def _advance(self, images: int) -> None:
        self._done += images
        self._on_progress(self._done, self._total)

    def _failed(self, file: ImageFile, error: str) -> Restored:
        self._total -= self._steps()
        return Restored(file.path, self.results.path(file.name), "failed", error)

    def _forward(self, shape: ImageShape) -> Forward:
        if shape not in self._forwards:
            if len(self._forwards) == MAX_SHAPES:
                self._forwards.pop(next(iter(self._forwards)))
            self._forwards[shape] = Forward(
                self.checkpoint, shape, self.settings, self._device, self._advance
            )
        return self._forwards[shape]

    def _prepared(self, file: ImageFile) -> _Item:
        picture = read_picture(file.path)
        pixels = self._conformed(picture.pixels, file.path)
        height, width, channels = pixels.shape
        omega = self._omega_of(file, ImageShape(channels, height, width))
        record = {"input_sha256": picture.sha256}
        if omega:
            record["omega_sha256"] = hashlib.sha256(save_row(omega)).hexdigest()
        return _Item(file, pixels, omega, record, self._reference(file, pixels))

    def _conformed(self, pixels: Pixels, path: Path) -> Pixels:
        settings = self.settings
        return conformed(
            pixels,
            self.checkpoint.spec.shape,
            str(path),
            fit=settings.fit,
            any_size=settings.any_size,
        )

    def _omega_of(self, file: ImageFile, shape: ImageShape) -> Row:
        trained = self.checkpoint.degradation
        if not self.settings.needs_omega(trained):
            return {}
        D = self._forward(shape).D
        if self._omega is not None:
            return self._omega.row(D, file.name, file.path)
        # Named, not numbered: the draw of a file is the same whatever files are beside it.
        rng = stream(self.settings.seed, f"restore/omega/{file.name}")
        drawn = D.draw(1, rng=[rng], images=self._images)
        return {name: value[0] for name, value in drawn.items()}

    def _reference(self, file: ImageFile, pixels: Pixels) -> Pixels | None:
        if self._references is None:
            return pixels if self.settings.degrade else None
        path = self._references.path(file.name)
        reference = self._conformed(read_picture(path).pixels, path)
        if reference.shape != pixels.shape:
            raise DataError(
                f"{path}: is {list(reference.shape)}, its image {file.path} {list(pixels.shape)}"
            )
        return reference

    def _skipped(self, item: _Item, record: Mapping[str, Any]) -> Restored:
        name = item.file.name
        self.results.refuse_another(name, record, item.record)
        comparisons = {}
        if item.reference is not None and not self.results.strip:
            store, shown = self.results.store, {"": item.pixels}
            for suffix in (".png", *[DEGRADED] * self.settings.degrade):
                shown[suffix] = decode_image(store.get(f"{name}{suffix}"), f"{name}{suffix}")
            given = shown.get(DEGRADED, item.pixels)
            comparisons[self.starts[0]] = _compared(shown[".png"], given, item.reference)
        return Restored(item.file.path, self.results.path(name), "skipped", "", comparisons)

    def _restored(self, items: Sequence[_Item]) -> dict[str, Restored]:
        """One batch, through R and into files."""
        forward, done = self._forward(items[0].shape), self._done
        images, omegas = [item.image for item in items], [item.omega for item in items]
        try:
            outcomes = {start: forward.restored(images, omegas, start) for start in self.starts}
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not any(n in str(error) for n in NO_MEMORY):
                raise
            self._done = done
            why = f"needs more memory than there is, {forward.rows} of {items[0].shape} at a time"
            way = "--batch-size 1, --fit or smaller images"
            return {
                i.file.name: self._failed(i.file, f"{i.file.path}: {why}; {way}") for i in items
            }
        return {item.file.name: self._written(item, n, outcomes) for n, item in enumerate(items)}

    def _written(self, item: _Item, n: int, outcomes: Mapping[int, Outcome]) -> Restored:
        lost = [start for start, outcome in outcomes.items() if not outcome.finite[n]]
        file, name = item.file, item.file.name
        if lost:
            error = f"{file.path}: R(x_t, t) holds NaN or inf from severity {lost[0]} on"
            return Restored(file.path, self.results.path(name), "failed", error)
        depth = item.pixels.dtype
        made = {start: to_pixels(outcome.x_0[n], depth) for start, outcome in outcomes.items()}
        given = {start: to_pixels(outcome.given[n], depth) for start, outcome in outcomes.items()}
        comparisons = {}
        if item.reference is not None:
            comparisons = {t: _compared(made[t], given[t], item.reference) for t in made}
        store = self.results.store
        if self.settings.degrade and item.omega:
            store.put(f"{name}{SUFFIX}", save_row(item.omega))
        if self.results.strip:
            picture = self._strip(item, made, given, comparisons)
        else:
            (start,) = made
            picture = encode_png(made[start])
            if self.settings.degrade:
                store.put(f"{name}{DEGRADED}", encode_png(given[start]))
        self.results.write(name, picture, item.record)
        return Restored(file.path, self.results.path(name), "restored", "", comparisons)

    def _strip(
        self,
        item: _Item,
        made: Mapping[int, Pixels],
        given: Mapping[int, Pixels],
        comparisons: Mapping[int, Comparison],
    ) -> bytes:
        D = self.checkpoint.degradation
        labels = {start: f"t = {start}" for start in made}
        rows = {"restored": {labels[t]: made[t] for t in made}}
        first = "original" if self.settings.degrade else "given"
        if self.settings.degrade:
            rows = {"degraded": {labels[t]: given[t] for t in given}} | rows
        return draw_strip(
            {label: {first: item.pixels} | row for label, row in rows.items()},
            {labels[t]: comparison for t, comparison in comparisons.items()},
            f"{item.file.path.name}, {D.spec.kind} undone from severity t of {D.num_timesteps}",
        )


def _compared(made: Pixels, given: Pixels, reference: Pixels) -> Comparison:
    return Comparison(Score.of(made, reference), Score.of(given, reference))
