"""The registry of networks, layouts, rules and methods: a file registers a class by its name in a YAML. No torch."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel

from caguda.errors import UserError
from caguda.files import read_regular

Kind = Literal["network", "layout", "rule", "method"]
T = TypeVar("T", bound=type[Any])

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]*"
"""The names of runs, methods, rules and networks as a regular expression: they become names of folders."""
FOLDERS: Mapping[Kind, str] = {
    "network": "caguda.networks",
    "layout": "caguda.datasets.layouts",
    "rule": "caguda.pseudo_labels",
    "method": "caguda.methods",
}
"""The package whose modules register the classes of a kind."""
_IMPORTED = "imported"  # a method of the package that registers no class, since it is no training


class Plugin(NamedTuple):
    """A Python file from outside the package, and the SHA-256 of the content that was run."""

    file: Path
    sha256: str


_REGISTERED: dict[str, dict[str, type[Any]]] = {}
_LOADED: dict[str, Plugin] = {}
"""The plugins that were run in this process, by the name of their module."""


def register(kind: Kind, *names: str) -> Callable[[T], T]:
    """A decorator that gives a class its names in a YAML.

    ValueError if another class has the name, and for settings in a set: its order differs between processes, and with it
    the record of the settings.
    """

    if kind not in FOLDERS:
        raise ValueError(f"the kind must be one of {', '.join(FOLDERS)}, found {kind!r:.60}")
    if no_text := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"the name of a {kind} must be text, found {no_text[0]!r:.60}")
    if odd := [name for name in names if kind != "layout" and not re.fullmatch(NAME_PATTERN, name)]:
        raise ValueError(f"the name of a {kind} must be of letters, digits, _ and -, found {odd[0]!r:.60}")
    if kind == "method" and _IMPORTED in names:
        raise ValueError(f"the method {_IMPORTED} is in caguda already; choose another name")

    def add(cls: T) -> T:
        if not isinstance(cls, type):
            raise ValueError(f"the {kind} {', '.join(names)} must be a class, found {cls!r:.60}")  # noqa: TRY004
        if issubclass(cls, BaseModel) and (key := _set_in(cls)):
            raise ValueError(f"{key} of the {kind} {', '.join(names)} must not be a set, write tuple[...] instead")
        if not _is_in_package(kind, cls):
            _import_folder(FOLDERS[kind])  # the package's classes have their names before a plugin can take one
        classes = _REGISTERED.setdefault(kind, {})
        for name in names:
            if (taken := classes.get(name, cls)) is not cls:
                raise ValueError(f"the {kind} {name} is in {taken.__module__} already; choose another name")
            classes[name] = cls
        return cls

    return add


def _set_in(settings: type[BaseModel]) -> str | None:
    """The first field of a settings class that is a set or holds one; None without one."""
    return next((key for key, field in settings.model_fields.items() if _holds_a_set(field.annotation)), None)


def _holds_a_set(annotation: Any) -> bool:
    cls = get_origin(annotation) or annotation
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return _set_in(cls) is not None
    return (isinstance(cls, type) and issubclass(cls, AbstractSet)) or any(map(_holds_a_set, get_args(annotation)))


@cache
def _import_folder(folder: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(folder).__path__):
        importlib.import_module(f"{folder}.{module.name}")


def registered(kind: Kind) -> Mapping[str, type[Any]]:
    """The classes of a kind by name, sorted: those of the package, and those of loaded plugins."""
    _import_folder(FOLDERS[kind])
    return dict(sorted(_REGISTERED.get(kind, {}).items()))


def registered_in_package(kind: Kind) -> dict[str, type[Any]]:
    """The classes of a kind by name, without those of plugins and tests."""
    return {name: cls for name, cls in registered(kind).items() if _is_in_package(kind, cls)}


def _is_in_package(kind: Kind, cls: type[Any]) -> bool:
    return cls.__module__.startswith(f"{FOLDERS[kind]}.")


def classes_by_name(kind: Kind, base: type[BaseModel], key: str, members: Sequence[str]) -> dict[str, type[Any]]:
    """The classes of a kind by name. UserError unless each derives from `base`, its `key` says its name, and it defines `members`.

    The key is a field of type Literal where `base` has such a field, otherwise a class variable.
    """
    is_field = key in base.model_fields
    for name, cls in registered(kind).items():
        names: Collection[Any] = ()
        if issubclass(cls, base):
            names = get_args(cls.model_fields[key].annotation) if is_field else [getattr(cls, key, None)]
        if name not in names:
            declaration = f'the field {key}: Literal["{name}"]' if is_field else f'{key}: ClassVar[str] = "{name}"'
            raise UserError(
                f"{cls.__module__}: the {kind} {name} must be a {base.__name__} with {declaration}, found "
                f"{cls.__qualname__} without it; add it"
            )
        if missing := [
            m for m in members if m not in cls.model_fields and getattr(cls, m, None) in (None, getattr(base, m, None))
        ]:
            raise UserError(
                f"{cls.__module__}: the {kind} {name} must define {missing[0]}, found {cls.__qualname__} without it; add it"
            )
    return dict(registered(kind))


def registered_class(kind: Kind, name: str) -> type[Any]:
    """The class of a name. UserError if it is unknown: commands that look at artifacts load no plugin."""
    classes = registered(kind)
    if name not in classes:
        raise UserError(
            f"{kind} {name}: this must be one of {', '.join(classes)}, found another name; it may be that of a plugin, "
            "and what only looks at artifacts runs none"
        )
    return classes[name]


def load_plugins(files: Iterable[Path]) -> None:
    """Run Python files that register classes, each once in a process. UserError if one is missing or fails.

    A plugin is code: only verbs that make an artifact from a configuration load its plugins.
    """
    for file in files:
        content = read_regular(file, "correct the path")
        name, plugin = f"caguda_plugin_{file.stem}", Plugin(file.absolute(), hashlib.sha256(content).hexdigest())
        first = _LOADED.setdefault(name, plugin)
        if first.sha256 != plugin.sha256:
            raise UserError(
                f"{file}: a plugin must have a name of its own and stay as it is while it is in use, found {first.file} "
                "with another content; rename one, or give the command again"
            )
        if name not in sys.modules:
            _run(name, plugin, content)


def _run(name: str, plugin: Plugin, content: bytes) -> None:
    """Run a plugin's content as a module. It is the content that was hashed, never older bytecode beside the file."""
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(plugin.file)
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the output of the verb
            exec(compile(content, plugin.file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except (Exception, SystemExit, GeneratorExit) as error:
        sys.modules.pop(name, None)
        _LOADED.pop(name, None)
        for classes in _REGISTERED.values():
            for incomplete in [key for key, cls in classes.items() if cls.__module__ == name]:
                del classes[incomplete]
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(plugin.file)]
        where = f" in line {lines[-1]}" if lines else ""
        raise UserError(
            f"{plugin.file}: a plugin must run without an error, found {type(error).__name__}{where}: "
            f"{_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    """The first line of an error's message; an error class of a plugin may fail to make one."""
    try:
        return str(error).partition("\n")[0]
    except Exception:  # noqa: BLE001
        return "it cannot say what"


def plugin_of(cls: type[Any]) -> Plugin | None:
    """The plugin that defines a class; None for a class of the package."""
    return _LOADED.get(cls.__module__)


def plugin_digests(kind: Kind, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of every plugin that defines a class of these names, by the name of its file."""
    plugins = [plugin_of(registered_class(kind, name)) for name in names]
    return {plugin.file.name: plugin.sha256 for plugin in plugins if plugin is not None}


def instance_of(module: str, name: str, plugin: Plugin | None) -> Any:
    """A new instance of a class, for pickle in another process. Its plugin is loaded first."""
    if plugin is not None:
        load_plugins([plugin.file])
        if _LOADED[module].sha256 != plugin.sha256:
            raise UserError(f"{plugin.file}: a plugin must stay as it is while it is in use, found another content")
    return getattr(importlib.import_module(module), name)()
