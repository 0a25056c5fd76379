"""Makes the shards of a data set on several threads: the same bytes for any number of them."""

from __future__ import annotations

import io
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from colddiff.data.left_out import DEEP, FRAMES, Altered, LeftOut
from colddiff.data.pil_images import Pixels, crop_and_resize, with_channels
from colddiff.data.problems import AlikeError, Problems
from colddiff.data.sources.source import ImageSource, SourceEntry, WholeSource
from colddiff.data.stacks.frames import RangeNeededError
from colddiff.data.tars import image_members, shard_entry, shard_key, write_tar
from colddiff.data.webdataset_tar import tar_description, tar_samples
from colddiff.errors import ColddiffError, DataError, Missing
from colddiff.ports import ImageFormat, ShardEntry, Store
from colddiff.types import ProgressCallback

PNG_SIZE = slice(16, 24)
PNG_COLOUR_TYPE = 25
COLOUR_TYPES = {1: 0, 3: 2}
"""In a PNG's header, by number of channels."""
FURTHER = "further_frames"
SIZES_SHOWN = 4
MOST_ROUNDS = 5
"""How often shards that are deleted while they are packed are made again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What the shards of a set are made of, in order, and how."""

    entries: Sequence[SourceEntry]
    image: ImageFormat
    image_size: int | None
    shard_size: int
    skip_broken: bool = False
    """Leave out images that cannot be decoded, and keep a list of them."""
    keep_colour: bool = False
    """A colour image ends the work with ColourFoundError where the set is of grey images."""
    reduce_depth: bool = False
    """Convert 16-bit images to 8 bit, if that is the set's depth; else they cannot be packed."""


class ColourFoundError(Exception):
    """A colour image in what was taken for a set of grey images."""


class _UnfitError(AlikeError):
    """An image that would be packed with another size; never skipped."""


@dataclass(slots=True)
class PackedShards:
    """The shards that hold images, and what happened to images on the way."""

    shards: list[ShardEntry] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, why) of each image that was skipped, in order."""
    altered: Altered = field(default_factory=Altered)
    """Of the images that this run stored."""


class Packer:
    """Makes shards on several threads.

    Threads suffice: reading, decoding and compressing all release the GIL.
    """

    def __init__(
        self,
        source: ImageSource,
        store: Store,
        plan: ShardPlan,
        on_progress: ProgressCallback | None,
        before_shard: Callable[[], None] = lambda: None,
    ) -> None:
        self._source, self._store, self._plan = source, store, plan
        self._ranges = [
            range(start, min(start + plan.shard_size, len(plan.entries)))
            for start in range(0, len(plan.entries), plan.shard_size)
        ]
        self._on_progress = on_progress
        self._before_shard = before_shard
        self._done = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._broken: dict[int, str] = {}
        self._problems = Problems()
        self._in_need: dict[int, RangeNeededError] = {}
        self._sizes: Counter[tuple[int, int]] = Counter()
        # By number: an image whose shard was deleted meanwhile is packed twice.
        self._grey: set[int] = set()
        self._transparent: set[int] = set()
        self._reduced: set[int] = set()
        self._enlarged: set[int] = set()
        self._further: set[int] = set()
        self._unfit: set[int] = set()
        """Those that are whole, of another size than the first."""
        self._result = PackedShards()

    def run(self, workers: int) -> PackedShards:
        """All shards in order.

        Raises DataError naming every image that cannot be packed, unless they are skipped.
        """
        existing = {item.key for item in self._store.list("shard-")}
        kept = [number for number in self._numbers if shard_key(number) in existing]
        shards = self._all(self._existing_entry, kept, workers)
        missing = [number for number in self._numbers if shards.get(number) is None]
        # Reported before the work starts, so that existing shards do not distort the rate.
        self._progress(sum(len(self._ranges[n]) for n in kept if shards[n] is not None))
        shards |= self._all(self._make_shard, missing, workers)
        self._refuse_problems()
        self._make_lost(shards, workers)
        self._result.shards = [
            shard for number in self._numbers if (shard := shards[number]) and shard.count
        ]
        for n in sorted(self._further):
            self._result.left_out.add(FRAMES, self._plan.entries[n].name)
        self._result.altered = self._altered()
        self._result.skipped = self._skipped()
        if not self._result.shards:
            raise DataError(
                f"{self._source.uri}: none of the {len(self._plan.entries)} images can be packed: "
                f"{self._result.skipped[0][1]}"
            )
        return self._result

    def _make_lost(self, shards: dict[int, ShardEntry | None], workers: int) -> None:
        """Makes those again that somebody has deleted meanwhile: no manifest may name them."""
        for _ in range(MOST_ROUNDS):
            there = {item.key for item in self._store.list("shard-")}
            lost = [n for n, shard in shards.items() if shard and shard.count]
            lost = [n for n in lost if shard_key(n) not in there]
            if not lost:
                return
            log.warning("%s: %d shards were deleted meanwhile", self._store.uri, len(lost))
            self._done -= sum(len(self._ranges[number]) for number in lost)
            shards |= self._all(self._make_shard, lost, workers)
            self._refuse_problems()
        raise ColddiffError(
            f"{self._store.uri}: its shards are deleted while they are packed; pack again when "
            "nothing deletes them"
        )

    def _altered(self) -> Altered:
        return Altered(
            grey=len(self._grey),
            transparent=len(self._transparent),
            reduced=len(self._reduced),
            enlarged=tuple(self._plan.entries[n].name for n in sorted(self._enlarged)),
            size=self._plan.image_size,
        )

    def _skipped(self) -> list[tuple[str, str]]:
        """(name, why) in order; a damaged file of many images once, and not for each of them."""
        found: dict[tuple[str, str], str] = {}
        for n in sorted(self._broken):
            entry, why = self._plan.entries[n], self._broken[n]
            of_file = (entry.group or entry.name, why)
            found[of_file] = of_file[0] if of_file in found else entry.name
        return [(name, why) for (_, why), name in found.items()]

    @property
    def _numbers(self) -> range:
        return range(len(self._ranges))

    def _all(
        self, work: Callable[[int], ShardEntry | None], numbers: list[int], workers: int
    ) -> dict[int, ShardEntry | None]:
        failures: list[BaseException] = []

        def unless_stopped(number: int) -> ShardEntry | None:
            if self._stopped:
                raise CancelledError
            try:
                self._before_shard()
                return work(number)
            except BaseException as error:
                # Here, before this thread takes the next shard, and not only where it is noticed.
                self._stopped = True
                failures.append(error)
                raise

        with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
            try:
                return dict(zip(numbers, pool.map(unless_stopped, numbers), strict=True))
            except CancelledError:
                # This thread was only stopped by what failed in another.
                raise failures[0] from None
            except BaseException:
                self._stopped = True
                pool.shutdown(cancel_futures=True)
                raise

    def _existing_entry(self, number: int) -> ShardEntry | None:
        """The entry of a shard that an earlier run made; None if it has to be made again.

        The claim fixes the settings and writes are atomic, so it is complete. It holds fewer
        images where broken ones were skipped, and grey ones where colour was found later.
        """
        key = shard_key(number)
        try:
            data = self._store.get(key)
            found = tar_samples(io.BytesIO(data), key)
        except (DataError, Missing):  # deleted since it was listed
            return None
        if not all(sample.name.isdecimal() for sample in found):
            return None
        samples = {int(sample.name): sample for sample in found}
        image, further = self._plan.image, set[int]()
        for n, sample in samples.items():
            png = sample.image.of(data)
            size = image.width.to_bytes(4, "big") + image.height.to_bytes(4, "big")
            if png[PNG_SIZE] != size or png[PNG_COLOUR_TYPE] != COLOUR_TYPES[image.channels]:
                return None
            if n not in self._ranges[number]:
                return None
            if FURTHER in tar_description(data, sample, key):
                further.add(n)
        for n in self._ranges[number]:
            if n not in samples and (not self._plan.skip_broken or self._pixels(n) is not None):
                return None
        self._further |= further
        return shard_entry(key, len(samples), data)

    def _make_shard(self, number: int) -> ShardEntry | None:
        key = shard_key(number)
        members = [member for n in self._ranges[number] for member in self._members(n)]
        if not members:
            return ShardEntry(key, 0, 0, "")
        data = write_tar(members)
        self._store.put(key, data)
        return shard_entry(key, len(members) // 2, data)

    def _members(self, number: int) -> list[tuple[str, bytes]]:
        if self._stopped:
            raise CancelledError
        entry, pixels = self._plan.entries[number], self._pixels(number)
        self._progress(1)
        # Once an image is bad there will be no set: the others are looked at, and not stored.
        if pixels is None or self._problems:
            return []
        if entry.name in self._source.transparent:
            self._transparent.add(number)
        described: dict[str, object] = {"source": entry.name}
        if entry.label is not None:
            described["label"] = entry.label
        if entry.name in self._source.multiframe:
            described[FURTHER] = True
            self._further.add(number)
        return image_members(f"{number:012d}", pixels, described)

    def _pixels(self, number: int) -> Pixels | None:
        """The pixels of an image as they are stored; None if it is broken, which is recorded."""
        entry, plan = self._plan.entries[number], self._plan
        try:
            pixels = self._source.load(entry)
            with self._lock:
                self._sizes[pixels.shape[1], pixels.shape[0]] += 1
            if plan.keep_colour and pixels.shape[2] > plan.image.channels:
                if plan.image.bits == 16:
                    raise DataError(
                        f"{entry.group or entry.name}: is a colour image; 16 bits are for grey "
                        "images: set --channels 1, or pack with 8 bits"
                    )
                raise ColourFoundError
            stored = conform_pixels(pixels, entry, plan)
            self._note_altered(number, pixels)
            return stored
        except _UnfitError as error:
            self._problems.add(str(error), number, error.like)
            self._unfit.add(number)
        except RangeNeededError as error:
            self._in_need[number] = error
            self._cannot(number, error.of_file(entry.group or entry.name))
        except (DataError, Missing) as error:
            self._cannot(number, str(error), getattr(error, "like", ""))
        return None

    def _note_altered(self, number: int, pixels: Pixels) -> None:
        """How an image was altered that is stored, as it was: those left out are not counted."""
        plan = self._plan
        if plan.image.channels == 3 and pixels.shape[2] == 1:
            self._grey.add(number)
        if pixels.dtype == np.uint16 and plan.image.bits == 8:
            self._reduced.add(number)
        own = not isinstance(self._source, WholeSource)  # the size of a published set is known
        if own and plan.image_size is not None and min(pixels.shape[:2]) < plan.image_size:
            self._enlarged.add(number)

    def _cannot(self, number: int, why: str, like: str = "") -> None:
        if self._plan.skip_broken:
            self._broken[number] = why
        else:
            self._problems.add(why, number, like)

    def _refuse_problems(self) -> None:
        if self._in_need and len(self._in_need) == len(self._problems):
            raise self._in_need[min(self._in_need)]
        ways = []
        if self._plan.image_size is None and len(self._sizes) > 1:
            sizes = [f"{n} of {w}x{h}" for (w, h), n in self._sizes.most_common(SIZES_SHOWN)]
            more = ", ..." if len(self._sizes) > SIZES_SHOWN else ""
            ways.append(
                f"the images have {len(self._sizes)} sizes ({', '.join(sizes)}{more}): set "
                "--image-size to crop and resize all of them"
            )
        broken = len(self._problems) > len(self._unfit)
        if broken and not self._plan.skip_broken:
            which = "the broken ones" if ways else "such images"
            ways.append(f"`colddiff data pack --skip-broken` leaves {which} out")
        self._problems.refuse("images cannot be packed", "; ".join(ways))

    def _progress(self, more: int) -> None:
        with self._lock:
            self._done += more
            if self._on_progress is not None and more:
                self._on_progress(self._done, len(self._plan.entries))


def conform_pixels(pixels: Pixels, entry: SourceEntry, plan: ShardPlan) -> Pixels:
    """Convert ``pixels`` to the format of ``plan``; raises DataError naming the file otherwise."""
    name = entry.group or entry.name  # all images of a file are alike
    image, image_size = plan.image, plan.image_size
    if pixels.dtype == np.uint16 and image.bits == 8:
        if not plan.reduce_depth:
            raise AlikeError(
                f"{name}: {DEEP}; use --bits 16 to keep its depth, in a grey set of one channel, "
                "or --bits 8 to convert it",
                like=DEEP,
            )
        pixels = np.rint(pixels / 257).astype(np.uint8)
    pixels = with_channels(pixels, image.channels)
    if image.bits == 16 and pixels.dtype == np.uint8:
        pixels = pixels.astype(np.uint16) * 257
    if image_size is not None:
        return crop_and_resize(pixels, image_size)
    height, width = pixels.shape[:2]
    if (height, width) != (image.height, image.width):
        raise _UnfitError(
            f"{name}: is {width}x{height}, the first image is {image.width}x{image.height}",
            like="another size",
        )
    return pixels
