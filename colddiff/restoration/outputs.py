"""The files that a restoration will write: none of them an input, nor a file of the user's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from colddiff.data.problems import Problems
from colddiff.errors import DataError, SpecError
from colddiff.machine.files import is_regular, read_regular
from colddiff.restoration.files import ImageFile
from colddiff.restoration.marks import DEGRADED, STRIP, is_degraded, is_omega, is_result
from colddiff.restoration.scores import CSV_COLUMNS, PROTOCOL
from colddiff.stores.open import ADDRESS

MAX_NAME_BYTES = 255
"""Of one part of a path, on usual file systems."""
SCORES = ("scores.csv", "scores.json")


def output_folder(text: str) -> Path:
    """The folder of ``--out``; raises SpecError for anything else."""
    if not text.strip():
        raise SpecError("--out: is empty; give a folder")
    match = ADDRESS.match(text)
    if match and match.group(1) == "file" and match.group(2):
        text = match.group(3)
    elif match and not os.path.lexists(text):
        raise SpecError(
            f"--out {text!r:.80}: restored images are written to a folder of this machine; give a "
            f"path (./{text:.60} if its name has a colon)"
        )
    if Path(text).suffix.lower() == ".png" and not Path(text).is_dir():
        raise SpecError(f"--out {text!r:.80}: is the name of an image; give a folder")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise SpecError(f"--out {text!r:.80}: {error}") from None


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files written for each image below ``out``."""

    out: Path
    strip: bool
    degrade: bool
    omega: bool
    """Whether what is random in D is written too."""
    strip_beside: bool = False
    """Whether a strip is written beside each result."""

    def names(self, name: str) -> list[str]:
        """Paths below ``out`` of the files of the image ``name``; the result comes first."""
        found = [f"{name}{STRIP if self.strip else '.png'}"]
        if self.degrade and not self.strip:
            found.append(f"{name}{DEGRADED}")
        if self.degrade and self.omega:
            found.append(f"{name}.omega.safetensors")
        if self.strip_beside:
            found.append(f"{name}{STRIP}")
        return found

    def refuse_long_name(self, name: str) -> None:
        """Raises DataError if a file system cannot hold the names of the image's files."""
        for output in self.names(name):
            for part in output.split("/"):
                if len(os.fsencode(part)) > MAX_NAME_BYTES:
                    raise DataError(
                        f"{name!r:.80}: the name of its result is longer than {MAX_NAME_BYTES} "
                        "bytes; shorten the name"
                    )

    def refuse_collisions(self, files: Sequence[ImageFile]) -> None:
        """Raises DataError if two images would write one file, or one a folder of another."""
        owners: dict[str, ImageFile] = {}
        problems = Problems()
        for file in files:
            for output in self.names(file.name):
                first = owners.setdefault(output, file)
                if first is not file:
                    problems.add(f"{first.path} and {file.path} would both write {output}")
        for output, file in owners.items():
            for folder in Path(output).parents:
                if (other := owners.get(str(folder))) is not None:
                    problems.add(
                        f"the result of {other.path} would be {folder}, which is the folder of the "
                        f"result of {file.path}"
                    )
        problems.refuse("results would be of two images", "restore them into two folders")

    def refuse_inputs(self, files: Sequence[ImageFile], others: Iterable[Path]) -> None:
        """Raises DataError if a file to be written is an image, or one of ``others``, or a link.

        That is so whatever is asked for: what is replaced is lost.
        """
        problems = Problems()
        inputs = {os.path.realpath(path) for path in [*(file.path for file in files), *others]}
        for file in files:
            for output in self.names(file.name):
                path = self.out / output
                if os.path.realpath(path) in inputs:
                    problems.add(
                        f"{path} is an input and would be replaced by the result of {file.path}"
                    )
        problems.refuse("inputs would be replaced", "use another folder for --out")

    def refuse_foreign(self, files: Sequence[ImageFile], scored: bool) -> None:
        """Raises DataError if a file to be written is there and no restoration made it."""
        found: list[Path] = []
        for file in files:
            result, *more = (self.out / output for output in self.names(file.name))
            if os.path.lexists(result):
                found += [] if is_result(result) else [result]
                # What lies beside a result is ours as well, but a strip only if it says so.
                more = more[len(more) - self.strip_beside :]
            found += [
                path
                for path in more
                if os.path.lexists(path)
                and not (is_result(path) if str(path).endswith(STRIP) else _is_beside(path))
            ]
        scores = [self.out / name for name in SCORES] if scored else []
        found += [path for path in scores if os.path.lexists(path) and not _is_scores(path)]
        problems = Problems()
        for path in found:
            problems.add(f"{path} already exists and was not made by `colddiff restore`")
        problems.refuse(
            "files are in the way", "what others made is not replaced: use another --out"
        )


def refuse_source_as_out(sources: Sequence[str], out: Path) -> None:
    """Raises SpecError if the folder of results is a folder of images."""
    for source in sources:
        folder = Path(os.path.expanduser(source))  # noqa: PTH111  # leaves unknown users alone
        if os.path.isdir(folder) and os.path.realpath(folder) == os.path.realpath(out):  # noqa: PTH112
            raise SpecError(
                f"--out {out} is the folder of the images; use another, such as "
                f"{os.path.normpath(out)}-restored"
            )


def _is_beside(path: Path) -> bool:
    return is_degraded(path) or is_omega(path)


def _is_scores(path: Path) -> bool:
    if not is_regular(path):
        return False
    try:
        data = read_regular(path)
    except OSError:
        return False
    if path.suffix == ".csv":
        return data.startswith(",".join(CSV_COLUMNS).encode())
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("protocol") == PROTOCOL
