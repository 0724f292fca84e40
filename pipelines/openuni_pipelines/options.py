"""Options of a command, made once from the configuration that it fills: a dataclass whose fields carry their help."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from openuni.errors import PlanError
from openuni.shards.parts import Part
from openuni.storage import is_object_url
from openuni.storage.local import FOLLOW_LINKS

Command = Callable[..., Any]


def of(config: type[Any], **defaults: Any) -> Callable[[Command], Command]:
    """Give a command one option a field of the dataclass `config`, and call it with one object.

    Objects come before other arguments, in the order of the decorators.

    `global_batch_size: int = 8` becomes `--global-batch-size`, of type INTEGER, with its default shown; a field without
    a default is required. A `bool` is a flag (`--x/--no-x` where it is True by default), a `Literal` a choice, a tuple
    a list by comma; a dataclass in a field gives its own options. The docstring below a field is the option's help, and
    the field's `metadata` may say more: `flag` (another name), `min` and `max`, `exists` (a path that must be there),
    `shown` (what None stands for), `known` (a function that lists names to print after the help). `defaults` are this
    command's own, by name of the field.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Greeting:
        ...     times: int = 2
        ...     '''How often.'''
        >>> @click.command()
        ... @of(Greeting)
        ... def greet(greeting: Greeting) -> None:
        ...     click.echo("hello" * greeting.times)
        >>> greet(["--times", "3"], standalone_mode=False)
        hellohellohello
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def configured(*before: Any, **given: Any) -> Any:
            return command(*before, _take(config, given), **given)

        decorated: Command = configured
        for option in reversed(list(_options(config, defaults))):
            decorated = option(decorated)
        return decorated

    return decorate


def follow_links(command: Command) -> Command:
    """Give a command that writes `--follow-links`. The environment carries it, so that workers have it too."""

    def allow(_: click.Context, __: click.Parameter, given: bool) -> None:
        if given:
            os.environ[FOLLOW_LINKS] = "1"

    said = "Write through symbolic links that you made yourself (shards on another disk). Otherwise they are refused."
    option = click.option("--follow-links", is_flag=True, expose_value=False, callback=allow, help=said)
    decorated: Command = option(command)
    return decorated


class Names(click.ParamType[Any, Any]):
    """`depth,flow` as ("depth", "flow"); of numbers, or of some words only, where the field says so."""

    name = "list"

    def __init__(self, item: Any = str) -> None:
        self._item = _param_type(item, {})

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        names = (name.strip() for name in value.split(","))
        return tuple(self._item.convert(name, param, ctx) for name in names if name)


class Place(click.ParamType[Any, Any]):
    """A folder (Path), or a place in an object store (str). `exists`: a folder must be there; `folder`: only that."""

    name = "place"

    def __init__(self, *, exists: bool = False, only_folder: str = "") -> None:
        self._exists = exists
        self._only_folder = only_folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        if isinstance(value, Path):
            return value
        if "://" in value:
            if self._only_folder:
                self.fail(f"{value}: {self._only_folder}", param, ctx)
            if not is_object_url(value):
                self.fail(f"{value} is neither a folder nor s3://…, gs://… or az://…", param, ctx)
            return str(value)
        return click.Path(path_type=Path, exists=self._exists, file_okay=not self._exists).convert(value, param, ctx)


class Parts(click.ParamType[Any, Any]):
    """`2/4` as the second of four parts."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        try:
            return value if isinstance(value, Part) else Part.parse(value)
        except PlanError as error:
            self.fail(str(error), param, ctx)


def _take(config: type[Any], given: dict[str, Any]) -> Any:
    """One `config` of what click has parsed; its options are taken out of `given`."""
    types = get_type_hints(config)
    values = {
        field.name: _take(types[field.name], given) if is_dataclass(types[field.name]) else given.pop(field.name)
        for field in _fields(config)
    }
    return config(**values)


def _options(config: type[Any], defaults: Mapping[str, Any]) -> Iterator[Callable[[Command], Command]]:
    types, helps = get_type_hints(config), _docstrings(config)
    for field in _fields(config):
        kind = types[field.name]
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _options(kind, defaults)
        else:
            yield _option(field, kind, helps.get(field.name, ""), defaults)


def _fields(config: type[Any]) -> list[Field[Any]]:
    return [field for field in fields(config) if field.init]


def _option(field: Field[Any], kind: Any, help_: str, defaults: Mapping[str, Any]) -> Callable[[Command], Command]:
    own = field.name in defaults
    said = {name: value for name, value in field.metadata.items() if not (own and name == "shown")}
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        kind = Place if kinds == [Path, str] else kinds[0]
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    default = defaults.get(field.name, default)
    flag = said.get("flag", "--" + field.name.replace("_", "-"))
    if "known" in said:
        help_ = f"{help_.rstrip('.')}: {', '.join(said['known']())}."
    if "shown" in said:
        help_ = f"{help_}  [default: {said['shown']}]"
    if kind is bool:
        switch = f"{flag}/--no-{flag.removeprefix('--')}" if default else flag
        return click.option(switch, field.name, is_flag=True, default=default, show_default=bool(default), help=help_)
    more: dict[str, Any] = {"required": True} if default is MISSING else {"default": default}
    if isinstance(default, tuple) and default and "shown" not in said:
        help_ = f"{help_}  [default: {','.join(map(str, default))}]"
    shown = not (default in (None, MISSING, "") or isinstance(default, tuple) or "shown" in said)
    return click.option(flag, field.name, type=_param_type(kind, said), show_default=shown, help=help_, **more)


def _param_type(kind: Any, said: Mapping[str, Any]) -> Any:
    """How click reads a value of the Python type `kind`."""
    if get_origin(kind) is Literal:
        return click.Choice([str(word) for word in get_args(kind)])
    if get_origin(kind) is tuple:
        return Names(get_args(kind)[0])
    if kind is Place:
        return Place()
    if kind is Path:
        return click.Path(path_type=Path, exists=said.get("exists", False))
    if kind in (int, float) and ("min" in said or "max" in said):
        bounded = click.IntRange if kind is int else click.FloatRange
        return bounded(said.get("min"), said.get("max"))
    return click.types.convert_type(kind)


def _docstrings(config: type[Any]) -> dict[str, str]:
    """The docstring below each field, on one line; those of a base class too. None where there is no source text."""
    helps: dict[str, str] = {}
    for one in reversed(config.__mro__):
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        except (OSError, TypeError):
            continue
        if not isinstance(body, ast.ClassDef):
            continue
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                helps[field.target.id] = " ".join(inspect.cleandoc(text).split())
    return helps
