"""Plugins: a user's Python files that register kinds when they are loaded."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from colddiff.errors import ColddiffError, SpecError
from colddiff.machine.files import read_regular
from colddiff.spec.registry import forget, registered_by


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin loaded in this process: its file's stem, its content's hash, its kinds."""

    name: str
    sha256: str
    kinds: tuple[tuple[str, str], ...]
    """(noun, kind) pairs, such as ``("degradation", "kspace")``."""

    @property
    def module(self) -> str:
        """The module name it is imported under, derived from its content."""
        return f"{MODULE}{self.sha256[:16]}"

    def kinds_of(self, noun: str) -> list[str]:
        """The kinds of one noun, such as ``degradation``."""
        return [kind for of, kind in self.kinds if of == noun]


MODULE = "colddiff_plugin_"
"""How the module names of plugins begin."""
MAX_BYTES = 16 * 2**20
_LOADED: dict[str, LoadedPlugin] = {}


def plugin_digest(path: str | Path) -> str:
    """sha256 (hex) of a plugin's bytes; SpecError if there is no such file."""
    return hashlib.sha256(_read(Path(path))).hexdigest()


def load_plugin(path: str | Path) -> LoadedPlugin:
    """Run the file once in this process; equal content under any path is the same plugin.

    Raises:
        SpecError: no such file, an error in it (with its line), a kind that already exists, or
            nothing registered. Kinds that the file registered before failing are removed again.
    """
    path = Path(path)
    content = _read(path)
    if not is_loaded(hashlib.sha256(content).hexdigest()) and path.suffix != ".py":
        raise SpecError(f"plugin {str(path)!r} is not a .py file")
    return load_plugin_source(content, str(path))


def load_plugin_source(content: bytes, where: str) -> LoadedPlugin:
    """Run a plugin's bytes once in this process; errors name it by ``where``."""
    digest = hashlib.sha256(content).hexdigest()
    if digest not in _LOADED:
        _LOADED[digest] = _run(Path(where), content, digest)
    return _LOADED[digest]


def is_loaded(sha256: str) -> bool:
    """Whether the plugin with this content is loaded in this process."""
    return sha256 in _LOADED


def plugin_that_brought(noun: str, name: str) -> LoadedPlugin | None:
    """The plugin behind a name, such as of a ``sampler``; None where it is built in."""
    found = (plugin for plugin in _LOADED.values() if (noun, name) in plugin.kinds)
    return next(found, None)


def plugin_source(path: str | Path) -> bytes:
    """A plugin's bytes; SpecError if there is no such file."""
    return _read(Path(path))


def load_plugins(paths: Iterable[str | Path]) -> list[LoadedPlugin]:
    """Load each file with ``load_plugin``."""
    return [load_plugin(path) for path in paths]


def unload_plugin(plugin: LoadedPlugin) -> None:
    """Unregister a plugin's kinds, so that an edited version of its file can be loaded."""
    forget(plugin.module)
    sys.modules.pop(plugin.module, None)
    _LOADED.pop(plugin.sha256, None)


def _read(path: Path) -> bytes:
    if "\0" in str(path):
        raise SpecError(f"plugin {str(path)!r} is not a path: it holds a NUL character")
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise SpecError(f"plugin {str(path)!r} cannot be read ({error.strerror})") from None


def _run(path: Path, content: bytes, digest: str) -> LoadedPlugin:
    plugin = LoadedPlugin(path.stem, digest, ())
    module = ModuleType(plugin.module)
    module.__file__ = str(path.absolute())
    # Annotations of specs and dataclasses are resolved through sys.modules while the file runs.
    sys.modules[plugin.module] = module
    try:
        # Run exactly the bytes that were hashed: the import system would read the file again, or a
        # stale .pyc, and leave a __pycache__ beside the user's file.
        code = compile(content, module.__file__, "exec", dont_inherit=True)
        # What a command prints to stdout is its own answer, such as JSON.
        with redirect_stdout(sys.stderr):
            exec(code, module.__dict__)  # noqa: S102
        kinds = registered_by(plugin.module)
        if not kinds:
            raise SpecError(
                "registers nothing; decorate a spec class with @DEGRADATIONS.register or "
                "@RESTORERS.register, or a sampler with @SAMPLERS.register"
            )
    except (Exception, SystemExit) as error:
        unload_plugin(plugin)
        where = f"plugin {str(path)!r}{_line(error, module.__file__)}"
        raise SpecError(f"{where}: {_what(error)}") from None
    return replace(plugin, kinds=tuple(kinds))


def name_errors(cls: type[Any], method: str) -> None:
    """Makes errors of a plugin's own ``method`` SpecErrors that name its kind: no bugs of ours."""
    own = cls.__dict__.get(method)
    if own is None or not cls.__module__.startswith(MODULE):
        return

    @functools.wraps(own)
    def named(self: Any, *values: Any) -> Any:
        try:
            return own(self, *values)
        except ColddiffError:
            raise
        except Exception as error:
            file = str(sys.modules[cls.__module__].__file__)
            where = f"{self.kind}, a plugin's{_line(error, file)}"
            raise SpecError(f"{where}: {method} raises {_what(error)}") from error

    setattr(cls, method, named)


def _what(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; a plugin is one file, its imports must be installed on every machine"
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    if isinstance(error, ColddiffError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _line(error: BaseException, file: str) -> str:
    trace, line = error.__traceback__, error.lineno if isinstance(error, SyntaxError) else 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" line {line}" if line else ""
