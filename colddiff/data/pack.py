"""Packs a source of images into shards and a manifest: idempotent, resumable, committed last."""

from __future__ import annotations

import json
import os
import shlex
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from colddiff.data.left_out import DEEP, Altered
from colddiff.data.manifest import KEY, kept_manifest, make_manifest, write_manifest
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.packer import ColourFoundError, PackedShards, Packer, ShardPlan
from colddiff.data.pil_images import Pixels
from colddiff.data.problems import Problems
from colddiff.data.sources.earlier import packed_earlier
from colddiff.data.sources.source import ImageSource, SourceEntry, listing_digest
from colddiff.data.stacks.frames import RangeNeededError
from colddiff.data.tars import shard_key
from colddiff.errors import DataError, Exists, Missing, SpecError
from colddiff.machine.wording import counted
from colddiff.ports import ImageFormat, Manifest, Store
from colddiff.spec.documents import DocumentError, read_json
from colddiff.stores.local_store import LocalStore
from colddiff.types import ProgressCallback

CLAIM = "pack.json"
"""Claim file: present beside the shards while packing, with the settings in use."""

RENEW_S = 600.0
"""How often a packing writes its claim anew: its age tells others that nobody goes on with it."""

MAX_WORKERS = 16
MOST_NAMED_BYTES = 2**30
"""Larger sets are not read for the names of their images, to say how they differ."""
MAX_SHARD_BYTES = 64 * 2**30
MOST_IN_NEED = 32
"""Images of physical values that are read before the set is taken for one of them."""
ABOUT = ("left_out", "skipped")
"""Entries of a manifest's settings that say what became of the images; no settings."""


@dataclass(frozen=True, slots=True)
class PackResult:
    """A complete data set; ``fresh`` is False if it was already packed."""

    manifest: Manifest
    fresh: bool
    altered: Altered = field(default_factory=Altered)
    """What this run stored as less, or more, than it was."""


@dataclass(frozen=True, slots=True)
class _Plan:
    shards: ShardPlan
    settings: dict[str, Any]
    """JSON-ready; equal settings produce equal bytes."""

    def in_colour(self) -> _Plan:
        """The same for a set that holds colour images as well."""
        image = replace(self.shards.image, channels=3)
        return _Plan(
            replace(self.shards, image=image, keep_colour=False),
            {**self.settings, "image": _json(image)},
        )


def pack(
    source: ImageSource,
    store: Store,
    settings: PackSettings,
    on_progress: ProgressCallback | None = None,
    workers: int | None = None,
    *,
    skip_broken: bool = False,
    in_colour: bool = False,
) -> PackResult:
    """Pack ``source`` into ``store``: tars of PNG and JSON members, then the manifest.

    Idempotent: repeating it does nothing, and after an interruption it keeps the finished shards.
    ``on_progress`` counts images. ``workers`` is the number of threads (default: one per CPU, at
    most MAX_WORKERS); the resulting bytes do not depend on it. A set with a colour image is one of
    colour images, unless the settings say otherwise. What was left out is in the manifest's
    settings; with ``skip_broken``, so are the images that cannot be decoded. 16-bit images become
    8 bit where ``settings`` were given ``bits=8``, and are refused where that is the default.
    ``in_colour``: the set is known to be one of colour images, such as the other split of one.

    Raises:
        SpecError: settings that do not apply to the source, or that differ from those of data
            already packed there.
        RangeNeededError: physical values without a range, if nothing else is wrong; skipped too.
        DataError: images that are missing, cannot be decoded, or differ in size: all of them in
            its details.
    """
    kept = kept_manifest(store)
    if kept is not None and packed_earlier(source, settings, kept):
        _refuse_without_deep(store, kept, settings.reduces_depth)
        return PackResult(kept, fresh=False)
    plan = _as_begun(store, _make_plan(source, settings, skip_broken))
    if in_colour and plan.shards.keep_colour and plan.shards.image.bits == 8:
        plan = plan.in_colour()
    while True:
        done = _finished(store, plan)
        if done is None:
            _claim(store, plan)
            # A concurrent run may have finished, and released its claim, since the first check.
            done = _finished(store, plan, claimed=True)
        if done is not None:
            return PackResult(done, fresh=False)
        try:
            packer = Packer(source, store, plan.shards, on_progress, _Renewal(store, plan))
            packed = packer.run(workers or min(os.cpu_count() or 1, MAX_WORKERS))
        except ColourFoundError:
            plan = _restarted(store, plan)
        except (DataError, SpecError):
            # Fixing or removing the bad images changes the set: these shards would block a retry.
            _discard(store, plan)
            raise
        else:
            return _committed(source, store, plan, packed)


def _committed(source: ImageSource, store: Store, plan: _Plan, packed: PackedShards) -> PackResult:
    about = {
        "left_out": [*source.left_out.to_list(), *packed.left_out.to_list()],
        "skipped": [[_shown(name), _shown(why)] for name, why in packed.skipped],
    }
    manifest = make_manifest(
        plan.shards.image,
        packed.shards,
        classes=[_shown(name) for name in source.classes],
        source=_shown(source.uri),
        settings={**plan.settings, **{name: found for name, found in about.items() if found}},
    )
    try:
        write_manifest(store, manifest, new=True)
    except Exists:
        _finished(store, plan)
    store.delete(CLAIM)
    return PackResult(manifest, fresh=True, altered=packed.altered)


def _make_plan(source: ImageSource, settings: PackSettings, skip_broken: bool) -> _Plan:
    entries = selected(source, settings)
    first = _first_whole(source, entries, _nothing_left(settings) if skip_broken else "")
    channels = settings.channels or first.shape[2]
    if settings.bits == 16 and channels != 1:
        raise SpecError(f"{source.uri} holds colour images: --bits 16 needs --channels 1")
    size = settings.image_size
    height, width = (size, size) if size else first.shape[:2]
    image = ImageFormat(channels, height, width, settings.bits, settings.range)
    per_shard = min(settings.shard_size, len(entries))
    if height * width * channels * settings.bits // 8 * per_shard > MAX_SHARD_BYTES:
        raise SpecError(
            f"--shard-size: {per_shard} images of {height}x{width} px may take more than "
            f"{MAX_SHARD_BYTES // 2**30} GiB, and a shard is made in memory; use fewer"
        )
    shards = ShardPlan(
        entries,
        image,
        size,
        settings.shard_size,
        skip_broken=skip_broken,
        keep_colour=settings.channels is None and channels == 1,
        reduce_depth=settings.reduces_depth,
    )
    return _Plan(
        shards,
        {
            "source": source.uri.partition(":")[0],
            **settings.to_dict(),
            "image": _json(image),
            "images_sha256": listing_digest(entries),
        },
    )


def _nothing_left(settings: PackSettings) -> str:
    """What is said of a set without an image that is whole, where the others are skipped."""
    which = f" of the {settings.split} split" if settings.split else ""
    other = "; another --holdout draws it anew" if settings.split and settings.holdout else ""
    return f"--skip-broken leaves no image{which}{other}"


def _first_whole(source: ImageSource, entries: list[SourceEntry], way_out: str) -> Pixels:
    """The first image that can be decoded; DataError naming all of them if none can.

    RangeNeededError where none of the first ``MOST_IN_NEED`` can for want of a range.
    """
    problems, in_need = Problems(), 0
    for number, entry in enumerate(entries, 1):
        try:
            return source.load(entry)
        except RangeNeededError as error:
            in_need += 1
            if in_need == number == min(MOST_IN_NEED, len(entries)):
                raise
            problems.add(error.of_file(entry.group or entry.name))
        except (DataError, Missing) as error:
            problems.add(str(error), like=getattr(error, "like", ""))
    raise problems.error("images cannot be packed, which are all there are", way_out)


def _json(image: ImageFormat) -> Any:
    return json.loads(json.dumps(asdict(image)))


def _shown(name: str) -> str:
    """A name that may be no text, such as a file's in another encoding, as text."""
    return name.encode("utf-8", "backslashreplace").decode()[:1000]


def _as_begun(store: Store, plan: _Plan) -> _Plan:
    """The plan in colour, if an earlier run found that it has to be."""
    if not plan.shards.keep_colour or plan.shards.image.bits == 16:
        return plan
    manifest = kept_manifest(store)
    begun = _settings_of(manifest) if manifest is not None else _read_claim(store, plan)
    return plan.in_colour() if begun == plan.in_colour().settings else plan


def _restarted(store: Store, plan: _Plan) -> _Plan:
    """The plan in colour, after the shards of grey images are deleted."""
    colour = plan.in_colour()
    if _read_claim(store, colour) != colour.settings:
        _discard(store, plan)
    return colour


def _settings_of(manifest: Manifest) -> dict[str, Any]:
    return {name: value for name, value in manifest.settings.items() if name not in ABOUT}


def _finished(store: Store, plan: _Plan, claimed: bool = False) -> Manifest | None:
    manifest = kept_manifest(store)
    if manifest is None:
        return None
    if claimed:
        store.delete(CLAIM)
    _refuse_other(store, _settings_of(manifest), plan)
    _refuse_without_deep(store, manifest, plan.shards.reduce_depth)
    return manifest


def _refuse_without_deep(store: Store, manifest: Manifest, reduce_depth: bool) -> None:
    """Raises SpecError where 16-bit images are to be converted that the finished set skipped."""
    deep = sum(DEEP in why for _, why in manifest.settings.get("skipped", ()))
    if deep and reduce_depth:
        raise SpecError(
            f"{store.uri} holds the set without its {counted(deep, '16-bit image')}; "
            f"{_way_out(store)}"
        )


def _claim(store: Store, plan: _Plan) -> None:
    try:
        store.put_new(CLAIM, _claim_bytes(plan))
    except Exists:
        _refuse_other(store, _read_claim(store, plan), plan)
        # Before a shard is looked at: the claim of a packing that is gone on with is young.
        _renew(store, plan)
        return
    found = next((item.key for item in store.list() if item.key.endswith(".tar")), None)
    if found is not None and store.size(KEY) is None:
        store.delete(CLAIM)
        raise SpecError(
            f"{store.uri} already holds {found}, which was not packed by colddiff; pack to another "
            f"place, or index it with `colddiff data index {store.uri}`"
        )


def _claim_bytes(plan: _Plan) -> bytes:
    return json.dumps(plan.settings, indent=1).encode()


def _renew(store: Store, plan: _Plan) -> None:
    """Gives the claim of this plan the present time, and puts it back where it was deleted.

    That of another plan is left as it is: a concurrent run may have found a colour image.
    """
    try:
        if read_json(store.get(CLAIM)) == plan.settings:
            store.put(CLAIM, _claim_bytes(plan))
    except DocumentError:
        return
    except Missing:
        if store.size(KEY) is None:
            with suppress(Exists):
                store.put_new(CLAIM, _claim_bytes(plan))


class _Renewal:
    """Called before each shard: renews the claim of ``plan`` every ``RENEW_S`` seconds."""

    def __init__(self, store: Store, plan: _Plan) -> None:
        self._store, self._plan = store, plan
        self._at = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._at >= RENEW_S:
            self._at = now
            _renew(self._store, self._plan)


def is_claim(data: bytes) -> bool:
    """Whether ``data`` is the claim of a packing, and no file of somebody else's of this name."""
    try:
        found = read_json(data)
    except DocumentError:
        return False
    return isinstance(found, dict) and "images_sha256" in found


def _discard(store: Store, plan: _Plan) -> None:
    """Delete the shards of this plan and its claim, and nothing else."""
    count = -(-len(plan.shards.entries) // plan.shards.shard_size)
    ours = {shard_key(number) for number in range(count)}
    for item in list(store.list("shard-")):
        if item.key in ours:
            store.delete(item.key)
    store.delete(CLAIM)


def _read_claim(store: Store, plan: _Plan) -> Any:
    try:
        return read_json(store.get(CLAIM))
    except Missing:  # the other run finished in the meantime
        return plan.settings
    except DocumentError:
        raise DataError(
            f"{store.uri}/{CLAIM} is not of `colddiff data pack`, or is damaged; use another "
            "folder, or delete it and the shards beside it"
        ) from None


def _refuse_other(store: Store, existing: Any, plan: _Plan) -> None:
    if existing == plan.settings:
        return
    if not isinstance(existing, dict) or "images_sha256" not in existing:
        raise SpecError(
            f"{store.uri} holds data that was not packed by `colddiff data pack`; use another place"
        )
    differs = [
        f"{name}: {existing.get(name)!r} there, {wanted!r} here"
        for name, wanted in plan.settings.items()
        if existing.get(name) != wanted and name not in ("image", "images_sha256")
    ]
    what = f"with {'; '.join(differs)}" if differs else f"from other images{_changes(store, plan)}"
    raise SpecError(f"{store.uri} holds data packed {what}; {_way_out(store)}")


def _changes(store: Store, plan: _Plan) -> str:
    """``: 2 new here, 1 gone``, as far as the names of the packed images tell."""
    from colddiff.data.manifests.paged import shard_bytes
    from colddiff.data.readers.image_data import names_of

    kept = kept_manifest(store)
    if kept is None or shard_bytes(kept.shards) > MOST_NAMED_BYTES:
        return ""
    skipped = [name for name, _ in kept.settings.get("skipped", ())]
    try:
        there = {*names_of(store, kept), *skipped}
    except (DataError, Missing):
        return ""
    here = {_shown(name) for entry in plan.shards.entries for name in (entry.name, entry.group)}
    here_whole = {_shown(entry.name) for entry in plan.shards.entries}
    new, gone = len(here_whole - there), len(there - here)
    if not new and not gone:
        return " (of the same names: files or their classes were changed)"
    images = f"{new} image{' is' if new == 1 else 's are'}"
    return f" ({images} new, {gone} {'is' if gone == 1 else 'are'} gone)"


def _way_out(store: Store) -> str:
    """What to do where other data is: of a finished set, that jobs refer to it."""
    delete = f"delete {store.uri}"
    if isinstance(store, LocalStore):
        delete = f"delete that data first: `{shlex.join(['rm', '-r', store.uri])}`"
    if kept_manifest(store) is None:
        return f"pack to another place, or {delete}"
    return (
        f"pack to another place, or {delete}; jobs trained on it refer to it, and cannot go on or "
        "be evaluated without it"
    )
