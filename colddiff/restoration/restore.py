"""Restores image files with a checkpoint: one PNG per file, each a function of its file alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from colddiff.checkpoints.references import LoadedCheckpoint
from colddiff.data.left_out import ALPHA, FRAMES, LeftOut
from colddiff.data.pil_images import Pixels, decode_image, encode_png, with_png_text
from colddiff.degradations.base import DrawImages
from colddiff.errors import DataError, SpecError
from colddiff.ports import ListedKey
from colddiff.restoration.files import ImageFile, conformed, read_picture
from colddiff.restoration.forward import Forward, RestoredBatch
from colddiff.restoration.marks import DEGRADED, DEGRADED_RECORD, degraded_severity, marked_omega
from colddiff.restoration.omega_files import SUFFIX, OmegaBeside, OmegaFiles, Row, save_row
from colddiff.restoration.outputs import Outputs
from colddiff.restoration.results import Results, draw_strip, to_pixels
from colddiff.restoration.scores import Comparison, GroundTruth, Score
from colddiff.restoration.settings import RestoreSettings
from colddiff.rng import stream
from colddiff.spec.plugins import plugin_that_brought
from colddiff.stores.local_store import LocalStore
from colddiff.transforms import normalise
from colddiff.types import Image, ImageShape, ProgressCallback

State = Literal["restored", "skipped", "failed"]
MAX_SHAPES = 4
NO_MEMORY = ("out of memory", "can't allocate", "not enough memory")


@dataclass(frozen=True, slots=True)
class Restored:
    """Result for one image; ``comparisons`` by severity, if there is a ground truth."""

    image: Path
    output: Path
    state: State
    error: str = ""
    comparisons: Mapping[int, Comparison] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Item:
    """An image waiting to be batched."""

    file: ImageFile
    pixels: Pixels
    omega: Row
    record: Mapping[str, Any]
    ground_truth: Pixels | None

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
        settings: how to restore each image.
        out: the output folder; existing results made from the same inputs are kept.
        omega: what is random in D, if known; else, with ``settings.degrade``, it is drawn for each
            file from its own stream, and saved beside the result.
        ground_truth: images to compare the results with; default with ``settings.degrade``: the
            clean images.
        images: draws from the second image set, if D mixes one in.
        device: where R runs.
        on_progress: called with (steps done, total); a step is one estimate of one image.

    Raises SpecError for settings that D does not support, or if omega is needed but unknown.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        settings: RestoreSettings,
        out: Path,
        *,
        omega: OmegaFiles | OmegaBeside | None = None,
        ground_truth: GroundTruth | None = None,
        images: DrawImages | None = None,
        device: torch.device | str = "cpu",
        on_progress: ProgressCallback = lambda done, total: None,
    ) -> None:
        D = checkpoint.degradation
        settings.check(D)
        if omega is None:
            settings.refuse_unknown_omega(D)
        self.checkpoint, self.settings = checkpoint, settings
        self.starts = settings.starts(D.num_timesteps)
        self.results = Results(LocalStore(out), self.record(), settings.severity == "all")
        self._strips = Results(self.results.store, self.results.settings, strip=True)
        self._omega, self._ground_truth, self._images = omega, ground_truth, images
        self._device, self._on_progress = torch.device(device), on_progress
        self.outputs = Outputs(
            self.results.store.root,
            strip=self.results.strip,
            degrade=settings.degrade,
            omega=bool(D.omega_names),
            strip_beside=settings.strip,
        )
        self.left_out = LeftOut()
        """What was not restored of the images that were."""
        self.fitted: dict[tuple[int, int], int] = {}
        """Heights and widths of the images that were cropped or resized, and of how many."""
        self._forwards: dict[ImageShape, Forward] = {}
        self._done = self._total = 0

    def record(self) -> dict[str, Any]:
        """The settings that determine a result, besides its image and omega; JSON-ready."""
        settings = self.settings
        severity = settings.severity if settings.severity == "all" else self.starts[0]
        record: dict[str, Any] = {
            "checkpoint": self.checkpoint.address.weights_sha256,
            "severity": severity,
            "sampler": settings.sampler,
            # As JSON has it, which earlier results are compared in.
            "severities": list(settings.severities)
            if isinstance(settings.severities, tuple)
            else settings.severities,
            "degrade": settings.degrade,
            "batch_size": settings.batch_size,
            "fit": settings.fit,
            "precision": settings.precision,
        }
        if (plugin := plugin_that_brought("sampler", settings.sampler)) is not None:
            record["sampler_sha256"] = plugin.sha256
        if settings.degrade and self.checkpoint.degradation.omega_names:
            record["seed"] = settings.seed
        return record

    def run(self, files: Sequence[ImageFile]) -> list[Restored]:
        """Restore the files, in order; a bad file does not affect the others.

        Raises SpecError, before anything is written, if an existing result was made with other
        settings, or if a file that would be written is an input or none of ours.
        """
        self._refuse_replacing(files)
        existing = self.results.existing(files, self.settings.overwrite)
        strips: dict[str, dict[str, Any]] = {}
        if self.settings.strip:
            strips = self._strips.existing(files, self.settings.overwrite)
        self._total = self._steps() * sum(file.name not in existing for file in files)
        found: dict[str, Restored] = {}
        waiting: dict[ImageShape, list[_Item]] = {}
        for file in files:
            try:
                item = self._prepared(file)
                if file.name in strips:
                    self._strips.refuse_another(file.name, strips[file.name], item.record)
                if file.name in existing:
                    draw = self.settings.strip and file.name not in strips
                    found[file.name] = self._skipped(item, existing[file.name], draw)
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

    def _refuse_replacing(self, files: Sequence[ImageFile]) -> None:
        others = [] if self._ground_truth is None else self._ground_truth.paths()
        if self._omega is not None:
            others += self._omega.paths([file.name for file in files])
        scored = self.settings.degrade or self._ground_truth is not None
        self.outputs.refuse_collisions(files)
        self.outputs.refuse_inputs(files, others)
        self.outputs.refuse_foreign(files, scored)

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
        self.outputs.refuse_long_name(file.name)
        picture = read_picture(file.path)
        if picture.multiframe:
            self.left_out.add(FRAMES, file.name)
        if picture.transparent:
            self.left_out.add(ALPHA, file.name)
        self._refuse_another_severity(file.path)
        pixels = self._conformed(picture.pixels, file.path)
        height, width, channels = pixels.shape
        given = picture.pixels.shape[0], picture.pixels.shape[1]
        if given != (height, width):
            self.fitted[given] = self.fitted.get(given, 0) + 1
        omega = self._omega_of(file, ImageShape(channels, height, width))
        record = {"input_sha256": picture.sha256}
        if omega:
            record["omega_sha256"] = hashlib.sha256(save_row(omega)).hexdigest()
        return _Item(file, pixels, omega, record, self._truth_of(file, pixels))

    def _refuse_another_severity(self, path: Path) -> None:
        """DataError for an image that was degraded to another severity than is taken for it."""
        asked = self.settings
        if asked.degrade or asked.severity is not None or isinstance(asked.severities, tuple):
            return
        severity, taken = degraded_severity(path), self.starts[0]
        if severity is not None and severity != taken:
            raise DataError(
                f"{path}: was degraded to severity {severity}, and is taken for one of {taken}: "
                f"add --severity {severity} (or {taken}, if that is meant)"
            )

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
        # Keyed by name, not index: a file's draw does not depend on the other files.
        name = file.name.encode("utf-8", "backslashreplace").decode()
        rng = stream(self.settings.seed, f"restore/omega/{name}")
        drawn = D.draw(1, rng=[rng], images=self._images)
        return {name: value[0] for name, value in drawn.items()}

    def _truth_of(self, file: ImageFile, pixels: Pixels) -> Pixels | None:
        if self._ground_truth is None:
            return pixels if self.settings.degrade else None
        path = self._ground_truth.path(file.name)
        truth = self._conformed(read_picture(path).pixels, path)
        if truth.shape != pixels.shape:
            raise DataError(
                f"{path}: is {list(truth.shape)}, its image {file.path} {list(pixels.shape)}"
            )
        return truth

    def _skipped(self, item: _Item, record: Mapping[str, Any], draw: bool) -> Restored:
        """What is there of an image; ``draw``: the strip that its result lacks is made."""
        name = item.file.name
        self.results.refuse_another(name, record, item.record)
        comparisons = {}
        if draw or (item.ground_truth is not None and not self.results.strip):
            store, shown = self.results.store, {"": item.pixels}
            for suffix in (".png", *[DEGRADED] * self.settings.degrade):
                key = ListedKey(f"{name}{suffix}")
                shown[suffix] = decode_image(store.get(key), key)
            degraded = shown.get(DEGRADED, item.pixels)
            if item.ground_truth is not None:
                compared = _compared(shown[".png"], degraded, item.ground_truth)
                comparisons[self.starts[0]] = compared
            if draw:
                self._draw_beside(item, shown[".png"], degraded)
        return Restored(item.file.path, self.results.path(name), "skipped", "", comparisons)

    def _restored(self, items: Sequence[_Item]) -> dict[str, Restored]:
        """Restore one batch and write its results."""
        forward, done = self._forward(items[0].shape), self._done
        images, omegas = [item.image for item in items], [item.omega for item in items]
        try:
            outcomes = {start: forward.restored(images, omegas, start) for start in self.starts}
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not any(n in str(error) for n in NO_MEMORY):
                raise
            self._done = done
            why = f"out of memory with {forward.rows} images of {items[0].shape} at a time"
            way = "use --batch-size 1, --fit or smaller images"
            return {
                i.file.name: self._failed(i.file, f"{i.file.path}: {why}; {way}") for i in items
            }
        return {item.file.name: self._written(item, n, outcomes) for n, item in enumerate(items)}

    def _written(self, item: _Item, n: int, outcomes: Mapping[int, RestoredBatch]) -> Restored:
        lost = [start for start, outcome in outcomes.items() if not outcome.finite[n]]
        file, name = item.file, item.file.name
        if lost:
            error = f"{file.path}: R(x_t, t) contains NaN or inf when started at severity {lost[0]}"
            return Restored(file.path, self.results.path(name), "failed", error)
        depth = item.pixels.dtype
        restored = {start: to_pixels(outcome.x_0[n], depth) for start, outcome in outcomes.items()}
        degraded = {start: to_pixels(outcome.x_t[n], depth) for start, outcome in outcomes.items()}
        comparisons = {}
        if item.ground_truth is not None:
            truth = item.ground_truth
            comparisons = {t: _compared(restored[t], degraded[t], truth) for t in restored}
        store = self.results.store
        if self.settings.degrade and item.omega:
            store.put(ListedKey(f"{name}{SUFFIX}"), marked_omega(item.omega))
        if self.results.strip:
            picture = self._strip(item, restored, degraded, comparisons)
        else:
            (start,) = restored
            picture = encode_png(restored[start])
            if self.settings.degrade:
                png = with_png_text(encode_png(degraded[start]), DEGRADED_RECORD, str(start))
                store.put(ListedKey(f"{name}{DEGRADED}"), png)
            if self.settings.strip:
                self._draw_beside(item, restored[start], degraded[start])
        self.results.write(name, picture, item.record)
        return Restored(file.path, self.results.path(name), "restored", "", comparisons)

    def _strip(
        self,
        item: _Item,
        restored: Mapping[int, Pixels],
        degraded: Mapping[int, Pixels],
        comparisons: Mapping[int, Comparison],
    ) -> bytes:
        D = self.checkpoint.degradation
        labels = {start: f"t = {start}" for start in restored}
        rows = {"restored": {labels[t]: restored[t] for t in restored}}
        first = "original" if self.settings.degrade else "input"
        if self.settings.degrade:
            rows = {"degraded": {labels[t]: degraded[t] for t in degraded}} | rows
        return draw_strip(
            {label: {first: item.pixels} | row for label, row in rows.items()},
            {labels[t]: comparison.restored for t, comparison in comparisons.items()},
            f"{_printable(item)}, {D.spec.kind} restored from severity t of {D.num_timesteps}",
        )

    def _draw_beside(self, item: _Item, restored: Pixels, degraded: Pixels) -> None:
        """Write the strip of one severity: degraded or given, restored, and the original."""
        D, truth = self.checkpoint.degradation, item.ground_truth
        first = "degraded" if self.settings.degrade else "given"
        columns, scores = {first: degraded, "restored": restored}, {}
        if truth is not None:
            compared = _compared(restored, degraded, truth)
            scores = {first: compared.degraded, "restored": compared.restored}
            columns["original"] = truth
        note = (
            f"{_printable(item)}, {D.spec.kind} of severity {self.starts[0]} of "
            f"{D.num_timesteps}, {self.settings.sampler}"
        )
        drawn = draw_strip({"": columns}, scores, note=note)
        self._strips.write(item.file.name, drawn, item.record)


def _printable(item: _Item) -> str:
    return "".join(c if c.isprintable() else "?" for c in item.file.path.name)


def _compared(restored: Pixels, degraded: Pixels, truth: Pixels) -> Comparison:
    return Comparison(Score.of(restored, truth), Score.of(degraded, truth))
