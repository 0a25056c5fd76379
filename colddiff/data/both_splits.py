"""Packs both splits of a source, training and test images, in one go and of one format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from colddiff.data.left_out import altered_lines
from colddiff.data.manifest import KEY
from colddiff.data.open import open_source
from colddiff.data.pack import PackResult, pack
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.sources.source import ImageSource
from colddiff.errors import DataError, SpecError
from colddiff.ports import Manifest, Store
from colddiff.spec import parse
from colddiff.stores.open import open_store
from colddiff.types import ProgressCallback

SPLITS = ("train", "test")


def pack_splits(
    source: str,
    uri: str,
    *,
    on_progress: ProgressCallback | None = None,
    on_altered: Callable[[str], None] = lambda line: None,
    workers: int | None = None,
    skip_broken: bool = False,
    **settings: object,
) -> dict[str, tuple[Manifest, bool]]:
    """Packs a SOURCE to ``uri``/train and ``uri``/test; by split what ``pack_source`` returns.

    The images are split by the source's own splits, else by ``holdout``, the part of test images.
    Both sets have one format: colour, where any image is. ``settings`` are other fields of
    ``PackSettings``; ``limit`` is of both splits together, each with its part of all images.

    Raises:
        SpecError, DataError: as ``pack`` does; before anything is written where a split would be
            empty. Images that cannot be packed are named for both splits at once; of a failed
            packing nothing is left, but what an earlier run has packed.
    """
    chosen = {split: parse(PackSettings, {**settings, "split": split}) for split in SPLITS}
    opened = open_source(source, chosen["train"])
    chosen, counts = _limited(opened, chosen)
    stores = {split: open_store(f"{uri.rstrip('/')}/{split}") for split in SPLITS}

    def packed(split: str, in_colour: bool) -> PackResult:
        before = counts["train"] if split == "test" else 0

        def progress(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(before + done, sum(counts.values()))

        return pack(
            opened,
            stores[split],
            chosen[split],
            progress,
            workers,
            skip_broken=skip_broken,
            in_colour=in_colour,
        )

    found = _both(packed, stores)
    for line in altered_lines(result.altered for result in found.values()):
        on_altered(line)
    return {split: (result.manifest, result.fresh) for split, result in found.items()}


def _both(
    packed: Callable[[str, bool], PackResult], stores: Mapping[str, Store]
) -> dict[str, PackResult]:
    """Both splits by ``packed(split, in_colour)``, of one format and size.

    Where that fails, nothing is left of what this run has packed.
    """
    found: dict[str, PackResult] = {}
    problems: dict[str, DataError] = {}
    try:
        for split in SPLITS:
            in_colour = bool(found) and found["train"].manifest.image.channels == 3
            try:
                found[split] = packed(split, in_colour)
            except DataError as error:
                problems[split] = error
        _refuse(problems)
        if found["train"].manifest.image.channels < found["test"].manifest.image.channels:
            _discard_grey(stores["train"], found["train"])
            found["train"] = packed("train", True)
        _refuse_other_sizes(stores, found)
    except (DataError, SpecError):
        # One split alone would stand in the way of the other settings that the error advises.
        _discard_fresh(stores, found)
        raise
    return found


def _limited(
    source: ImageSource, chosen: dict[str, PackSettings]
) -> tuple[dict[str, PackSettings], dict[str, int]]:
    """Settings of each split, and how many images it has.

    A limit below the number of images is parted as they are, at least one to a split.
    """
    limit = chosen["train"].limit
    unlimited = {split: of.model_copy(update={"limit": None}) for split, of in chosen.items()}
    counts = {split: len(selected(source, of)) for split, of in unlimited.items()}
    if limit is None or limit >= sum(counts.values()):
        return chosen, counts
    if limit < len(SPLITS):
        raise SpecError([("limit", f"is {limit}, of both splits together: give at least 2")])
    test = round(limit * counts["test"] / sum(counts.values()))
    test = min(max(test, 1), limit - 1, counts["test"])
    counts = {"train": min(limit - test, counts["train"]), "test": test}
    return {
        split: of.model_copy(update={"limit": counts[split]}) for split, of in chosen.items()
    }, counts


def _refuse(problems: Mapping[str, DataError]) -> None:
    if len(problems) == 1:
        raise next(iter(problems.values()))
    if problems:
        lines = [line for error in problems.values() for line in error.details or [str(error)]]
        raise DataError("; ".join(f"{split}: {error}" for split, error in problems.items()), lines)


def _discard_grey(store: Store, result: PackResult) -> None:
    """Deletes a set of grey images that this run packed; SpecError for one of an earlier run."""
    if not result.fresh:
        raise SpecError(
            f"{store.uri} holds grey images of an earlier run, and there are colour images now: "
            "delete it, or pack to another place"
        )
    _discard(store, result)


def _discard_fresh(stores: Mapping[str, Store], found: Mapping[str, PackResult]) -> None:
    """Deletes the sets that this run packed, and none of an earlier run."""
    for split, result in found.items():
        if result.fresh:
            _discard(stores[split], result)


def _discard(store: Store, result: PackResult) -> None:
    store.delete(KEY)  # first: without it there is no set
    for shard in result.manifest.shards:
        store.delete(shard.key)


def _refuse_other_sizes(stores: Mapping[str, Store], found: Mapping[str, PackResult]) -> None:
    train, test = (_size(found[split].manifest) for split in SPLITS)
    if train == test:
        return
    earlier = [stores[split].uri for split in SPLITS if not found[split].fresh]
    delete = f"delete {' and '.join(earlier)}, and " if earlier else ""
    raise DataError(
        f"the training images are {train[0]}x{train[1]}, the test images {test[0]}x{test[1]}: "
        f"{delete}set --image-size to crop and resize all of them"
    )


def _size(manifest: Manifest) -> tuple[Any, ...]:
    return manifest.image.width, manifest.image.height
