"""The map in ARCHITECTURE.md, held against the tree and against the layers that it draws."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "colddiff"
INDENT = "  "


def drawn() -> list[str]:
    """Paths below ``colddiff/`` that the map names, in its order; folders end with a slash.

    The map is the block below the heading: a line for each path, indented by its depth.
    """
    text = (PACKAGE / "ARCHITECTURE.md").read_text()
    root, *lines = text.partition("## The map")[2].split("```")[1].strip("\n").splitlines()
    assert root == "colddiff/"
    paths: list[str] = []
    above: list[str] = []
    for line in lines:
        name, _, what = line.strip().partition(" ")
        assert what.strip(), f"{name} says nothing"
        depth = (len(line) - len(line.lstrip())) // len(INDENT)
        above = [*above[: depth - 1], name]
        paths.append("".join(above))
    return paths


def test_the_map_names_every_folder_and_top_level_file_and_nothing_else() -> None:
    packages = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("__init__.py")}
    folders = {f"{path.as_posix()}/" for path in packages - {Path()}}
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert sorted(drawn()) == sorted(folders | files)


def test_the_map_is_drawn_in_the_order_of_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in settings["contracts"] if c["type"] == "layers")
    height = {
        name.strip(): number for number, layer in enumerate(layers) for name in layer.split("|")
    }
    top = [path for path in drawn() if "/" not in path.rstrip("/")]
    heights = [height[f"colddiff.{path.removesuffix('/').removesuffix('.py')}"] for path in top]
    assert heights == sorted(heights)
