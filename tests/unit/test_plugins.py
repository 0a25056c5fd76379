"""Plugins: a user's file registers kinds, is known by its content, and fails in one clear line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colddiff.cluster.stage import staged
from colddiff.degradations import DEGRADATIONS, build_degradation
from colddiff.errors import SpecError
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.resolve import ResolvedJob, resolve
from colddiff.restorers import RESTORERS
from colddiff.spec.plugins import load_plugin, load_plugins, plugin_digest, unload_plugin

FADE = '''\
"""Fades to grey."""

from __future__ import annotations

from typing import Literal

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec


@DEGRADATIONS.register
class FadeSpec(DegradationSpec):
    """Severity t fades the image to grey."""

    kind: Literal["fade"] = "fade"
    strength: float = 1.0

    def build(self, shape):
        return Fade(self, shape)


class Fade(Degradation[FadeSpec]):
    def _degrade(self, x0, t, omega):
        weight = (t / self.num_timesteps).to(x0.dtype).view(-1, 1, 1, 1)
        return x0 * (1 - self.spec.strength * weight)
'''

pytestmark = pytest.mark.usefixtures("unloaded_plugins")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str = FADE, name: str = "fade.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_plugin_adds_its_kinds_and_is_known_by_its_content(write: Write) -> None:
    path = write()
    loaded = load_plugin(path)
    assert loaded.name == "fade"
    assert loaded.kinds == (("degradation", "fade"),)
    assert loaded.kinds_of("degradation") == ["fade"]
    assert loaded.kinds_of("restorer") == []
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == plugin_digest(path)
    assert DEGRADATIONS.parse({"kind": "fade", "strength": 0.5}).to_dict()["strength"] == 0.5
    assert [entry.name for entry in path.parent.iterdir()] == ["fade.py"], "nothing is left behind"


def test_the_same_content_is_the_same_plugin_under_any_path(write: Write) -> None:
    first, kind = load_plugin(write()), DEGRADATIONS["fade"]
    assert load_plugins([write(), write(name="elsewhere/other.py")]) == [first, first]
    assert DEGRADATIONS["fade"] is kind, "it ran once"


def test_what_runs_is_what_was_hashed_however_fast_the_file_changes(write: Write) -> None:
    loaded = load_plugin(write())
    unload_plugin(loaded)
    # Equal size, equal time stamp: a cached .pyc would be taken for this file's.
    path = write()
    stamp = path.stat()
    path = write(FADE.replace("1.0", "0.7"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = load_plugin(path)
    assert changed.sha256 != loaded.sha256
    assert DEGRADATIONS.parse({"kind": "fade"}).to_dict()["strength"] == 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "registers nothing; decorate a spec class"),
        (
            FADE.replace('"fade"', '"noise"'),
            "line 10: .*'noise' .* already defined by colddiff.degr",
        ),
        (
            FADE.replace(' = "fade"', ""),
            'line 10: FadeSpec: define its kind, such as kind: Literal["',
        ),
        (FADE + "\n\nraise ValueError('no luck')\n", "line 27: ValueError: no luck"),
        (FADE + "\n\nimport sys\nsys.exit()\n", "line 28: SystemExit$"),
        (FADE + "\n\nfrom my_folder import x\n", "a plugin is one file, its imports must be"),
        ("def f(:\n", "line 1: SyntaxError: invalid syntax"),
        ("x = 1\n\x00", "SyntaxError"),
    ],
    ids=["nothing", "taken", "nameless", "raises", "exits", "imports", "syntax", "binary"],
)
def test_a_bad_plugin_is_one_clear_line_and_leaves_nothing(
    write: Write, text: str, message: str
) -> None:
    path = write(text)
    noise, before = DEGRADATIONS["noise"], set(DEGRADATIONS)
    with pytest.raises(SpecError, match=message.replace('["', r'\["')) as caught:
        load_plugin(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert set(DEGRADATIONS) == before
    assert DEGRADATIONS["noise"] is noise
    assert not [name for name in sys.modules if name.endswith(plugin_digest(path)[:16])]
    assert load_plugin(write()).kinds, "the corrected file loads in the same process"


def test_a_missing_file_and_another_kind_of_file_are_refused(write: Write) -> None:
    with pytest.raises(SpecError, match=r"'nowhere\.py' cannot be read \(No such file"):
        load_plugin("nowhere.py")
    with pytest.raises(SpecError, match=r"notes\.txt' is not a \.py file"):
        load_plugin(write(name="notes.txt"))


def test_an_edited_plugin_is_refused_until_the_old_one_is_unloaded(write: Write) -> None:
    loaded = load_plugin(write())
    edited = write(FADE + "# edited\n")
    with pytest.raises(SpecError, match=r"'fade' of .* already defined by colddiff_plugin"):
        load_plugin(edited)
    unload_plugin(loaded)
    assert load_plugin(edited).kinds == loaded.kinds


def test_what_a_plugin_fails_to_build_is_its_own_error_by_name(write: Write) -> None:
    load_plugin(write(FADE.replace("def _degrade(", "def degrade(")))
    with pytest.raises(SpecError) as caught:
        build_degradation({"kind": "fade"}, (1, 8, 8))
    line = 1 + FADE.splitlines().index("        return Fade(self, shape)")
    assert str(caught.value).startswith(f"fade, a plugin's line {line}: build raises TypeError: ")
    assert "_degrade" in str(caught.value)


def test_what_a_plugin_prints_as_it_is_loaded_is_no_answer_of_a_command(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    load_plugin(write(f"{FADE}\nprint('hello')\n"))
    assert capsys.readouterr() == ("", "hello\n")


def test_a_plugin_may_bring_a_restorer_too(write: Write) -> None:
    text = (
        "from typing import Literal\n"
        "from colddiff.restorers import RESTORERS, RestorerSpec\n\n"
        "@RESTORERS.register\nclass MineSpec(RestorerSpec):\n"
        '    kind: Literal["mine"] = "mine"\n'
    )
    assert load_plugin(write(text)).kinds == (("restorer", "mine"),)
    assert "mine" in RESTORERS


JOB = """\
train:
  plugins: [./fade.py]
  data: digits
  image_size: 8
  channels: 1
  degradation: {kind: fade, strength: 0.9}
  restorer: {kind: convnext_unet, dim: 8, dim_mults: [1, 2]}
"""


def test_a_job_file_names_plugins_relative_to_itself(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(name="jobs/fade.py")
    monkeypatch.chdir(write(JOB, "jobs/mine.yaml").parents[1])
    for path in ("jobs/mine.yaml", str(tmp_path / "jobs/mine.yaml")):
        job = load_recipe(path).train
        assert job.degradation.kind == "fade"
        assert job.plugins == (str(tmp_path / "jobs" / "fade.py"),)


@pytest.fixture
def resolved(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def resolved(folder: str, plugin: str = FADE) -> ResolvedJob:
        write(plugin, f"{folder}/fade.py")
        recipe = load_recipe(write(JOB, f"{folder}/mine.yaml"))
        return resolve(recipe.train, recipe.name, storage=str(tmp_path / "runs"))

    return resolved


def test_a_job_is_known_by_what_its_plugins_say_not_by_where_they_lie(
    resolved: Callable[..., ResolvedJob],
) -> None:
    here, there = resolved("here"), resolved("there")
    assert here.id == there.id
    assert here.job.plugins != there.job.plugins
    unload_plugin(load_plugin(here.job.plugins[0]))
    assert resolved("there", FADE + "# edited\n").id != here.id


def test_a_plugin_travels_with_the_staged_job_to_another_process(
    resolved: Callable[..., ResolvedJob], tmp_path: Path
) -> None:
    code = (
        "import json, sys; from colddiff.jobs.resolve import ResolvedJob;"
        "job = ResolvedJob.from_dict(json.load(open(sys.argv[1]))).job;"
        "print(json.dumps([job.plugins, job.degradation.to_dict()['strength']]))"
    )
    with staged(resolved("here")) as folder:
        (tmp_path / "here" / "fade.py").unlink()  # the user's file stays at home
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, str(folder / "job.json")],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    name = f"plugins/{hashlib.sha256(FADE.encode()).hexdigest()}.py"
    assert json.loads(done.stdout) == [[name], 0.9]
