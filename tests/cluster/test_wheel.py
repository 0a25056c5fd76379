"""The wheel: one package with its catalogue, which works wherever it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from colddiff import __version__
from colddiff.jobs.recipes import catalogue, list_recipes
from tests.kills import PATIENCE_S

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]
PARTS = {f"report/page/parts/page.{end}" for end in ("css", "html.j2", "js")}
DATA = {"ARCHITECTURE.md", "features/lenet_digits.safetensors", "catalogue/README.md"} | PARTS
DATA |= {"py.typed"}
SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
SHORT = (
    *("num_steps=4", "checkpoint_every=4", "evaluation.num_images=32", "workers=1"),
    *("degradation.num_timesteps=4", "global_batch_size=16"),
)


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The command without a trace of this checkout or another cluster in its environment."""
    foreign = ("PYTHONPATH", "COLDDIFF_", "RAY_", "MLFLOW_")
    inherited = {n: value for n, value in os.environ.items() if not n.startswith(foreign)}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    done = run(sys.executable, *build, cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, and an empty folder to use it from."""

    environment: Path
    folder: Path

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(self.environment / "bin" / "colddiff", *arguments, cwd=self.folder)

    def python(self, code: str) -> str:
        done = run(self.environment / "bin" / "python", "-c", code, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh environment with the wheel, which borrows what the wheel depends on from this one."""
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    folder = tmp_path_factory.mktemp("unrelated")
    made = run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    assert made.returncode == 0, made.stderr
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    done = run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    site = Path(run(python, "-c", SITE, cwd=folder).stdout.strip())
    # A plain line of a .pth file comes after the environment's own packages, and the .pth files of
    # the folder it names are not read: an editable install there stays out of sight.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in sorted(borrowed)))
    return Installed(environment, folder)


def test_the_wheel_holds_one_package_and_its_data(wheel: Path) -> None:
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    tops = {name.parts[0] for name in names}
    assert tops == {"colddiff", f"colddiff-{__version__}.dist-info"}
    inside = [name.relative_to("colddiff") for name in names if name.parts[0] == "colddiff"]
    yaml = {name.as_posix() for name in inside if name.suffix == ".yaml"}
    assert yaml == {f"catalogue/{recipe}.yaml" for recipe in list_recipes()}
    others = {name.as_posix() for name in inside if name.suffix not in (".py", ".yaml")}
    assert others == DATA


def test_the_code_and_the_catalogue_are_the_installed_ones(installed: Installed) -> None:
    places = installed.python(
        "import colddiff; from colddiff.jobs.recipes import catalogue; "
        "from colddiff.cluster.stage import PACKAGE; "
        "print(colddiff.__path__[0], PACKAGE, catalogue(), sep='\\n')"
    )
    package, staged, jobs = map(Path, places.splitlines())
    assert package.is_relative_to(installed.environment)
    assert staged == package
    assert jobs == package / "catalogue"
    assert catalogue() == ROOT / "jobs"


USES = """
from typing import assert_type

import colddiff

job = colddiff.load_recipe("quickstart").train.with_(num_steps=5)
assert_type(job, colddiff.TrainJob)
D = colddiff.build_degradation({"kind": "blur"}, colddiff.ImageShape(1, 8, 8))
rows: list[dict[str, object]] = colddiff.list_jobs()
checkpoint = colddiff.load_checkpoint(colddiff.train(job)["checkpoint"])
assert_type(checkpoint.step, int)
figure = colddiff.plot_grid(colddiff.restore(checkpoint, colddiff.open_data("digits")[:4]))
figure.savefig("grid.png")
"""
MISUSES = {
    "job.num_step = 3": 'has no attribute "num_step"',
    "colddiff.ImageShape(1, 8)": 'Missing positional argument "width"',
    "colddiff.sample(D, D)": 'Missing positional argument "x_T"',
    "colddiff.train(3)": "incompatible type",
    "colddiff.pack": 'Module has no attribute "pack"',
}
"""Lines that a type checker refuses, and what it says."""


def test_a_type_checker_sees_the_types_of_the_installed_package(installed: Installed) -> None:
    user = installed.folder / "user.py"
    user.write_text(USES + "\n".join(MISUSES) + "\n")
    # Third-party types are not ours to check, and take a minute to read.
    settings = "[mypy]\nstrict = True\n[mypy-torch.*,numpy.*,matplotlib.*]\nfollow_imports = skip\n"
    (installed.folder / "mypy.ini").write_text(settings)
    python = installed.environment / "bin" / "python"
    command = (sys.executable, "-m", "mypy", "--python-executable", python, "--no-error-summary")
    found = run(*command, user.name, cwd=installed.folder).stdout.splitlines()
    first = USES.count("\n") + 1
    assert {line.partition(": ")[0] for line in found} == {
        f"{user.name}:{first + n}" for n in range(len(MISUSES))
    }, found
    for n, said in enumerate(MISUSES.values()):
        assert any(line.startswith(f"{user.name}:{first + n}: ") and said in line for line in found)


def test_the_installed_command_lists_the_catalogue(installed: Installed) -> None:
    done = installed("--version")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")
    done = installed("recipes")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list_recipes()


def test_the_installed_demo_runs_from_any_folder(installed: Installed) -> None:
    done = installed("demo", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "pictures:" in done.stdout
    (job,) = (installed.folder / "demo" / "runs" / "jobs").iterdir()
    assert (job / "result.json").is_file()
    assert (job / "report.html").is_file()
