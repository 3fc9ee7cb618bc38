"""What is added as one file: it registers a class under the name that a YAML uses. No torch."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

from caguda.errors import UserError
from caguda.files import read_regular

Kind = Literal["network", "layout", "rule", "method"]
T = TypeVar("T", bound=type[Any])

FOLDERS: Mapping[Kind, str] = {
    "network": "caguda.networks",
    "layout": "caguda.datasets.layouts",
    "rule": "caguda.pseudo_labels",
    "method": "caguda.methods",
}
"""The package whose modules register the classes of a kind."""


class Plugin(NamedTuple):
    """A Python file from outside the package, and the SHA-256 of what was run of it."""

    file: Path
    sha256: str


_REGISTERED: dict[str, dict[str, type[Any]]] = {}
_LOADED: dict[str, Plugin] = {}
"""The plugins that were run in this process, by the name of their module."""


def register(kind: Kind, *names: str) -> Callable[[T], T]:
    """A decorator of classes: from now on, `names` in a YAML mean this class. ValueError where a name is taken."""

    def add(cls: T) -> T:
        if not cls.__module__.startswith(f"{FOLDERS[kind]}."):
            _import_folder(FOLDERS[kind])  # the names of the package are taken before those of a plugin
        own = _REGISTERED.setdefault(kind, {})
        for name in names:
            other = own.get(name, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"the {kind} {name} is in {other.__module__} already; choose another name")
            own[name] = cls
        return cls

    return add


@cache
def _import_folder(folder: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(folder).__path__):
        importlib.import_module(f"{folder}.{module.name}")


def known(kind: Kind) -> Mapping[str, type[Any]]:
    """The class of every known name of a kind, sorted by name: those of the package, and those of loaded plugins."""
    _import_folder(FOLDERS[kind])
    return dict(sorted(_REGISTERED.get(kind, {}).items()))


def find(kind: Kind, name: str) -> type[Any]:
    """The class of a name; UserError where only a plugin that was not loaded knows it, as in looking at artifacts."""
    classes = known(kind)
    if name not in classes:
        raise UserError(
            f"{kind} {name}: this must be one of {', '.join(classes)}, found another name; it may be that of a plugin, "
            "and what only looks at artifacts runs none"
        )
    return classes[name]


def load_plugins(files: Iterable[Path]) -> None:
    """Run Python files that register classes; each once in a process. UserError where one is missing or fails.

    A plugin is code: only what trains, or makes an artifact of a configuration, loads those that it names.
    """
    for file in files:
        content = read_regular(file, "correct the path")
        name, plugin = f"caguda_plugin_{file.stem}", Plugin(file.absolute(), hashlib.sha256(content).hexdigest())
        loaded = _LOADED.setdefault(name, plugin)
        if loaded.sha256 != plugin.sha256:
            raise UserError(
                f"{file}: a plugin must have a name of its own and stay as it is while it is in use, found {loaded.file} "
                "with another content; rename one, or give the command again"
            )
        if name not in sys.modules:
            _run(name, plugin, content)


def _run(name: str, plugin: Plugin, content: bytes) -> None:
    """Make a module of a plugin's content: what was hashed is what runs, and no older bytecode beside it."""
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(plugin.file)
    try:
        with redirect_stdout(sys.stderr):  # what a verb prints is its own
            exec(compile(content, plugin.file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except (Exception, SystemExit, GeneratorExit) as error:
        sys.modules.pop(name, None)
        _LOADED.pop(name, None)
        for classes in _REGISTERED.values():
            for taken in [taken for taken, cls in classes.items() if cls.__module__ == name]:
                del classes[taken]
        reason = _said(error)
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(plugin.file)]
        where = f" in line {lines[-1]}" if lines else ""
        raise UserError(
            f"{plugin.file}: a plugin must run without an error, found {type(error).__name__}{where}: {reason}"
        ) from error


def _said(error: BaseException) -> str:
    """The first line that an error of a plugin says, which may fail at that too."""
    try:
        return str(error).partition("\n")[0]
    except Exception:  # noqa: BLE001
        return "it cannot say what"


def plugin_of(cls: type[Any]) -> Plugin | None:
    """The plugin that a class comes from; None for one of the package."""
    return _LOADED.get(cls.__module__)


def plugin_digests(kind: Kind, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of every plugin that the classes of these names come from, by the name of its file."""
    plugins = [plugin_of(find(kind, name)) for name in names]
    return {plugin.file.name: plugin.sha256 for plugin in plugins if plugin is not None}


def instance_of(module: str, name: str, plugin: Plugin | None) -> Any:
    """A new instance of a class, as pickle makes it in another process, where a plugin has yet to be loaded."""
    if plugin is not None:
        load_plugins([plugin.file])
        if _LOADED[module].sha256 != plugin.sha256:
            raise UserError(f"{plugin.file}: a plugin must stay as it is while it is in use, found another content")
    return getattr(importlib.import_module(module), name)()
