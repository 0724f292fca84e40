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
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from openuni import registry
from openuni.errors import OpenUniError, PlanError
from openuni.storage import is_object_url
from openuni.storage.local import FOLLOW_LINKS

if TYPE_CHECKING:
    from openuni.shards.parts import Part

Command = Callable[..., Any]


def of(config: type[Any], **defaults: Any) -> Callable[[Command], Command]:
    """Give a command one option a field of the dataclass `config`, and call it with one object.

    Objects come before other arguments, in the order of the decorators.

    `global_batch_size: int = 8` becomes `--global-batch-size`, of type INTEGER, with its default shown; a field without
    a default is required. A `bool` is a flag (`--x/--no-x` where it is True by default), a `Literal` a choice, a tuple
    a comma-separated list; a dataclass in a field gives its own options. The docstring below a field is the option's
    help, and the field's `metadata` may say more: `flag` (another name), `min` and `max`, `exists` (a path that must be
    there), `shown` (what None stands for), `known` (a function that lists names to print after the help), `plugins` (an
    entry-point group: the option names one of its classes, of which an object is made; the fields of that class are
    further options of the command, which must be a `PluggedCommand`). `defaults` are this command's own, by name of the
    field.

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

    said = "Write through symbolic links that you made yourself, such as to shards on another disk."
    option = click.option("--follow-links", is_flag=True, expose_value=False, callback=allow, help=said)
    decorated: Command = option(command)
    return decorated


def staging(command: Command) -> Command:
    """Give a command that writes to a folder or an object store `--staging`."""
    said = "With an object store: local folder to work in.  [default: data/staging/BUCKET-FOLDER]"
    option = click.option("--staging", type=click.Path(path_type=Path, file_okay=False), help=said)
    decorated: Command = option(command)
    return decorated


def trust(command: Command) -> Command:
    """Give a command that makes annotations `--trust`."""
    said = "Allow model files that are programs, each only with its pinned SHA-256."
    decorated: Command = click.option("--trust", is_flag=True, help=said)(command)
    return decorated


class PluginOption(click.Option):
    """Names a class of an entry-point group; the fields of a class that is a dataclass are options beside it."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def named(self, args: list[str]) -> str | None:
        """The name that is given on the command line; of several the last, as click has it."""
        name = None
        for place, word in enumerate(args):
            flag, equals, value = word.partition("=")
            if flag in self.opts:
                name = value if equals else next(iter(args[place + 1 :]), None)
        return name


class PluggedCommand(click.Command):
    """A command with options of a plug-in that one of its options names; `--help` beside that option shows them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        plugins = [param for param in self.params if isinstance(param, PluginOption)]
        names = [plugin.named(args) for plugin in plugins]  # before click takes the words away
        ctx.meta[_PLUGGED] = [
            option
            for plugin, name in zip(plugins, names, strict=True)
            for option in _plugged(plugin, name, self.params)
        ]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            for plugin, name in zip(plugins, names, strict=True):
                if owners := _owners(plugin.group, error.option_name):
                    group = plugin.group.removesuffix("s")
                    raise click.UsageError(
                        f"{error.option_name} is an option of {group} {', '.join(owners)}, not of {name}",
                        ctx,
                    ) from error
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(_PLUGGED, ())]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        plugged = ctx.meta.get(_PLUGGED, [])
        own = [param for param in self.get_params(ctx) if param not in plugged]
        for title, params in (("Options", own), ("Options of what it names", plugged)):
            if records := [record for param in params if (record := param.get_help_record(ctx))]:
                with formatter.section(title):
                    formatter.write_dl(records)


_PLUGGED = "openuni.plugged"


def _plugged(plugin: PluginOption, name: str | None, taken: list[click.Parameter]) -> list[click.Parameter]:
    """The options of the plug-in `name`. Raises OpenUniError where the command has one of that name already."""
    if name is None or name not in registry.names(plugin.group):
        return []
    options = _params(registry.load(plugin.group, name))
    for flag in {flag for param in taken for flag in param.opts} & {flag for option in options for flag in option.opts}:
        raise OpenUniError(f"{plugin.group}: {name!r} has an option {flag}, as the command has; rename its field")
    return options


def _owners(group: str, flag: str) -> list[str]:
    """The plug-ins that have an option `flag`."""
    return [
        name
        for name in registry.names(group)
        if any(flag in option.opts for option in _params(registry.load(group, name)))
    ]


def _params(config: type[Any]) -> list[click.Parameter]:
    if not is_dataclass(config):
        return []

    def bare() -> None: ...

    for option in reversed(list(_options(config, {}))):
        option(bare)
    return list(reversed(getattr(bare, "__click_params__", [])))


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


class NumberOr(click.ParamType[Any, Any]):
    """A number, or one of some words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.name = "|".join(("float", *words))
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value in self._words:
            return str(value)
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' nor '.join(map(repr, self._words))}", param, ctx)


class Parts(click.ParamType[Any, Any]):
    """`2/4` as the second of four parts."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        from openuni.shards.parts import Part

        try:
            return value if isinstance(value, Part) else Part.parse(value)
        except PlanError as error:
            self.fail(str(error), param, ctx)


def _take(config: type[Any], given: dict[str, Any]) -> Any:
    """One `config` of what click has parsed; its options are taken out of `given`."""
    types = get_type_hints(config)
    return config(**{field.name: _value(field, types[field.name], given) for field in _fields(config)})


def _value(field: Field[Any], kind: Any, given: dict[str, Any]) -> Any:
    if "plugins" in field.metadata:
        plugin: type[Any] = registry.load(field.metadata["plugins"], given.pop(field.name))
        return _take(plugin, given) if is_dataclass(plugin) else plugin()
    return _take(kind, given) if isinstance(kind, type) and is_dataclass(kind) else given.pop(field.name)


def _options(config: type[Any], defaults: Mapping[str, Any]) -> Iterator[Callable[[Command], Command]]:
    types, helps = get_type_hints(config), _docstrings(config)
    for field in _fields(config):
        kind = types[field.name]
        if "plugins" in field.metadata:
            yield _plugin_option(field, helps.get(field.name, ""))
        elif isinstance(kind, type) and is_dataclass(kind):
            yield from _options(kind, defaults)
        else:
            yield _option(field, kind, helps.get(field.name, ""), defaults)


def _plugin_option(field: Field[Any], help_: str) -> Callable[[Command], Command]:
    group, flag = field.metadata["plugins"], f"--{field.name}"
    help_ = (
        f"{help_.split(';')[0].rstrip('.')}: {', '.join(registry.names(group))}. {flag} NAME --help shows its options."
    )
    return click.option(flag, field.name, cls=PluginOption, group=group, required=True, help=help_)


def _fields(config: type[Any]) -> list[Field[Any]]:
    return [field for field in fields(config) if field.init]


def _option(field: Field[Any], kind: Any, help_: str, defaults: Mapping[str, Any]) -> Callable[[Command], Command]:
    own = field.name in defaults
    said = {name: value for name, value in field.metadata.items() if not (own and name == "shown")}
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        words = tuple(word for one in kinds if get_origin(one) is Literal for word in get_args(one))
        kind = Place if kinds == [Path, str] else NumberOr(words) if kinds[0] is float and words else kinds[0]
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
    if isinstance(kind, NumberOr):
        return kind
    if kind is Place:
        return Place(exists=said.get("exists", False))
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
