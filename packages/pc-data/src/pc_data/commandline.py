"""The command-line front end that every command shares: typed flags, short errors, quick help.

A command is a function. Its positional parameters without a default become positional arguments,
the others become flags; its docstring is the help. A positional parameter whose type is a
dataclass is spread over the top level: each field is a flag (`--lr`), each nested dataclass a
prefix (`--model.width`), and `--config FILE` and `--preset NAME` fill many at once. What is
heavy, a command imports in its body, so that help and typing errors are answered at once.

A field's help comes from the `Attributes:` section of its class.
"""

import argparse
import dataclasses
import difflib
import inspect
import os
import re
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
import jsonargparse
import yaml

from pc_data.errors import exit_code, one_line, printable
from pc_data.files.yaml_files import PlainLoader

Presets = Mapping[str, Callable[[], Any]]
_MOST_SETTINGS = 1 << 14  # bytes; deeper values than such a file can hold crash the parser


class UsageError(ValueError):
    """The command line itself is wrong; nothing was run."""


def run(
    commands: Mapping[str, Callable[..., int | None]],
    *,
    prog: str,
    description: str,
    presets: Mapping[str, Presets] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run the command that the arguments name.

    Args:
        commands: The functions by command name; a function returns an exit code, or None for 0.
        prog: Name of the program, for messages.
        description: One sentence that opens the overview of commands.
        presets: For a command that takes a dataclass: named makers of instances. Values come
            from the class's defaults, then the preset, then the configuration files, then the
            flags, in whatever order these are written.
        argv: The arguments; those of the process by default.

    Returns:
        0 done, 130 interrupted, what the command returned, or after one line on standard error
        the code of an error, see `pc_data.errors.exit_code`. Other errors keep their traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words or os.environ.get("PC_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        if not words or words[0] in ("-h", "--help"):
            stream = sys.stdout if words else sys.stderr
            stream.write(_overview(commands, prog=prog, description=description))
            return 0 if words else 2
        name = words[0]
        if name not in commands:
            raise UsageError(f"unknown command {name!r}" + _nearest(name, commands))
        chosen = (presets or {}).get(name, {})
        command = _bind(commands[name], words[1:], prog=f"{prog} {name}", presets=chosen)
        return command() or 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return 130
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {one_line(error)}\n")
        if isinstance(error, UsageError):
            help_of = f"{prog} {words[0]}" if words[0] in commands else prog
            sys.stderr.write(f"see: {help_of} --help\n")
        return code


def to_yaml(config: Any) -> str:  # noqa: ANN401
    """Write a dataclass as YAML that `--config` reads back.

    Args:
        config: An instance of a dataclass whose leaves are plain values, paths or sequences.

    Returns:
        The YAML text, fields in their order of declaration.
    """
    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _overview(commands: Mapping[str, Callable], *, prog: str, description: str) -> str:
    width = max(map(len, commands))
    lines = [f"usage: {prog} COMMAND ...", "", description, "", "commands:"]
    lines += [
        f"  {name:{width}}  {(inspect.getdoc(command) or '').partition(chr(10))[0]}"
        for name, command in commands.items()
    ]
    lines += ["", f"{prog} COMMAND --help lists the flags of one.", ""]
    return "\n".join(lines)


class _Parser(jsonargparse.ArgumentParser):
    """A parser whose help gives types by their plain names."""

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", super().format_help(formatter))


def _bind(
    command: Callable, words: Sequence[str], *, prog: str, presets: Presets
) -> Callable[[], int | None]:
    """Turn the words after the command's name into a call without arguments."""
    parser, spread = _parser(command, prog=prog, presets=presets)
    words = _tidy(parser, words, presets=presets, has_config=bool(spread))
    words = _apply_preset(parser, words, presets)
    _check_files(words)
    try:
        # `parse_args` says nothing of the file when a configuration file is wrong.
        namespace = parser.instantiate(parser.parse_args(words))
    except jsonargparse.ArgumentError as error:
        raise UsageError(printable(_explain(str(error), parser, words))) from error
    except (TypeError, KeyError) as error:
        raise UsageError(one_line(error)) from error
    values = {}
    for name in inspect.signature(command).parameters:
        if name in spread:
            config_class = spread[name]
            fields = [field.name for field in dataclasses.fields(config_class) if field.init]
            values[name] = config_class(**{field: namespace[field] for field in fields})
        else:
            values[name] = namespace[name]
    return lambda: command(**values)


def _check_files(words: Sequence[str]) -> None:
    """Refuse a configuration file that is no YAML, or that unfolds to very much."""
    for file in (Path(word.partition("=")[2]) for word in words if word.startswith("--config=")):
        if not file.is_file():
            continue  # the parser says so
        if (size := file.stat().st_size) > _MOST_SETTINGS:
            raise UsageError(f"{file}: {size} bytes are no file of settings; pass another one")
        try:
            yaml.load(file.read_text(encoding="utf-8"), Loader=PlainLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"{file}: Problems parsing config: {printable(f'{error}')}") from error


def _parser(
    command: Callable, *, prog: str, presets: Presets
) -> tuple[jsonargparse.ArgumentParser, dict[str, type]]:
    """Build the parser, and say which parameters are dataclasses spread over the top level."""
    doc = docstring_parser.parse(inspect.getdoc(command) or "")
    helps = {item.arg_name: item.description for item in doc.params}
    text = "\n\n".join(filter(None, (doc.short_description, doc.long_description)))
    parser = _Parser(
        prog=prog,
        description=text,
        epilog=_list_presets(presets),
        exit_on_error=False,
        allow_abbrev=False,
    )
    hints = typing.get_type_hints(command)
    spread: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        hint, default = hints[name], parameter.default
        is_config = dataclasses.is_dataclass(hint)
        if default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            if is_config:
                parser.add_argument("--config", action="config", help="YAML file of flags.")
                parser.add_class_arguments(hint, None)
                _plain_defaults(parser)
                spread[name] = hint
            elif typing.get_origin(hint) is list:
                item = typing.get_args(hint)[0]
                parser.add_argument(name, type=item, nargs="+", help=helps.get(name))
            else:
                parser.add_argument(name, type=hint, help=helps.get(name))
        elif is_config:
            parser.add_class_arguments(hint, name)
        else:
            options = {"required": True} if default is parameter.empty else {"default": default}
            parser.add_argument(f"--{name}", type=hint, help=helps.get(name), **options)
    return parser, spread


def _list_presets(presets: Presets) -> str:
    entries = [
        f"{name} ({(inspect.getdoc(maker) or '').partition(chr(10))[0].rstrip('.')})"
        for name, maker in presets.items()
    ]
    return f"--preset NAME starts from one of: {'; '.join(entries)}." if entries else ""


def _apply_preset(
    parser: jsonargparse.ArgumentParser, words: Sequence[str], presets: Presets
) -> list[str]:
    """Make the preset's values the defaults, and take `--preset NAME` out of the words."""
    words = list(words)
    while "--preset" in words:
        at = words.index("--preset")
        if at + 1 == len(words):
            raise UsageError(f"--preset needs a name, one of {', '.join(presets)}")
        name = words[at + 1]
        if name not in presets:
            raise UsageError(
                f"unknown preset {name!r}; one of {', '.join(presets)}" + _nearest(name, presets)
            )
        _set_defaults(parser, presets[name](), prefix="")
        del words[at : at + 2]
    return words


def _set_defaults(parser: jsonargparse.ArgumentParser, config: Any, *, prefix: str) -> None:  # noqa: ANN401
    actions = _flags(parser)
    for field in dataclasses.fields(config):
        key, value = prefix + field.name, getattr(config, field.name)
        if value == Path():
            continue  # what only the user can say, a preset leaves open
        if any(flag.startswith(f"--{key}.") for flag in actions if not flag.endswith(".help")):
            _set_defaults(parser, value, prefix=f"{key}.")
        else:
            parser.set_defaults(
                {key: _plain(value) if _item_fields(actions[f"--{key}"]) else value}
            )
            actions[f"--{key}"].required = False


def _plain_defaults(parser: jsonargparse.ArgumentParser) -> None:
    """Give lists of dataclasses as mappings, the only form that `--print_config` can write."""
    for action in parser._actions:  # noqa: SLF001
        if _item_fields(action) and isinstance(action.default, (list, tuple)):
            parser.set_defaults({action.dest: _plain(action.default)})


def _flags(parser: jsonargparse.ArgumentParser) -> dict[str, Any]:
    """The parser's actions by flag."""
    return {
        flag: action
        for action in parser._actions  # noqa: SLF001
        for flag in action.option_strings
        if flag.startswith("--")
    }


def _hint_of(action: Any) -> Any:  # noqa: ANN401
    hint = getattr(action, "_typehint", None)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [item for item in typing.get_args(hint) if item is not type(None)]
        return options[0] if len(options) == 1 else hint
    return hint


def _tidy(
    parser: jsonargparse.ArgumentParser,
    words: Sequence[str],
    *,
    presets: Presets,
    has_config: bool,
) -> list[str]:
    """Check the flags' names and bring them into the one form that the parser takes.

    Dashes in a flag mean underscores, a switch needs no value, `4,5` is a list where a list is
    due, and configuration files go first so that flags win wherever they stand.
    """
    actions = _flags(parser)
    special = ["--preset"] if presets else []
    words, files, rest = list(words), [], []
    while words:
        word = words.pop(0)
        if word == "--" or not word.startswith("--"):
            rest.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = _known_flag(flag, actions, special)
        hint = _hint_of(actions.get(flag.removesuffix("+")))
        if not equals and hint is bool and (not words or not _is_bool(words[0])):
            equals, value = "=", "true"
        elif not equals and flag not in ("--help", "--print_config") and words:
            equals, value = "=", words.pop(0)
            if value.startswith("--"):
                raise UsageError(f"{flag} needs a value, got the flag {value}")
        is_list = typing.get_origin(hint) in (tuple, list)
        if is_list and value and value[0] not in "[{" and value != "null":
            value = f"[{value}]" if not flag.endswith("+") else value
        if flag in special:
            rest += [flag, value] if equals else [flag]
        else:
            target = files if has_config and flag == "--config" else rest
            target.append(flag + equals + value)
    return files + rest


def _is_bool(word: str) -> bool:
    return word.lower() in ("true", "false", "yes", "no")


def _known_flag(flag: str, actions: Mapping[str, Any], special: Iterable[str]) -> str:
    """Return the flag as the parser spells it, or raise with the nearest one."""
    known = {*actions, *special}
    known |= {
        f"{name}.{field}" for name, action in actions.items() for field in _item_fields(action)
    }
    for spelling in (flag, flag.replace("-", "_").replace("__", "--", 1)):
        if spelling in known:
            return spelling
    raise UsageError(f"unknown flag {flag}" + _nearest(flag, known))


def _item_fields(action: Any) -> list[str]:  # noqa: ANN401
    """Field names of the items when the flag takes a list of dataclasses, or one or none."""
    hint = _hint_of(action)
    item = next(iter(typing.get_args(hint)), hint)
    return (
        [field.name for field in dataclasses.fields(item)] if dataclasses.is_dataclass(item) else []
    )


def _nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message that offers the nearest known word, or nothing.

    A flag typed without its prefix (`--width`) is as near as one with a slip.
    """
    known = sorted(known)

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, word.lower(), candidate).ratio()
        tail, other = (text.lower().rpartition(".")[2].lstrip("-") for text in (word, candidate))
        return max(whole, 0.9 * difflib.SequenceMatcher(None, tail, other).ratio())

    best = max(known, key=likeness, default="")
    if not best or likeness(best) < 0.6:
        return f"; known: {', '.join(known)}" if len(known) <= 8 else ""
    return f"; did you mean {best}?"


def _explain(message: str, parser: jsonargparse.ArgumentParser, words: Sequence[str]) -> str:
    """Say the parser's refusal in one line with the nearest right choice."""
    files = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    flags = _flags(parser)
    if found := re.search(r"nrecognized arguments: (\S+)", message):
        return f"unexpected argument {found[1]!r}"
    if found := re.search(r"arguments are required: (.+)", message):
        beside = f"; pass it, or set it in {', '.join(files)}" if files else ""
        return f"missing: {_as_flags(found[1], flags)}{beside}"
    if found := re.search(r"(?:Group '(.+)' does not accept o|O)ption '(.+?)'", message):
        where = f"{', '.join(files)}: " if files else ""
        group = found[1] or (re.findall(r'Parser key "(\S+)"', message) or [""])[0]
        key = ".".join(filter(None, (group, found[2].removeprefix(f"{group}."))))
        known = [flag[2:] for flag in flags if flag not in ("--help", "--config")] + [
            f"{flag[2:]}.{name}" for flag, action in flags.items() for name in _item_fields(action)
        ]
        return f"{where}unknown key {key}" + _nearest(key, known)
    if found := re.search(r"Parser key \"(\S+)\"", message):
        return _explain_value(found[1], message, parser, files)
    return f"{', '.join(files)}: {one_line(message)}" if files else one_line(message)


def _explain_value(
    key: str, message: str, parser: jsonargparse.ArgumentParser, files: Sequence[str]
) -> str:
    if key == "config":
        found = re.search(r"File does not exist: '(.+)'", message)
        return f"--config: no such file: {found[1]}" if found else one_line(message)
    inner = re.findall(r"Parser key \"(\S+)\"", message)
    where = ".".join(inner)
    action = next(action for action in parser._actions if action.dest == key)  # noqa: SLF001
    flag = f"--{where}" if action.option_strings else where
    value = (re.findall(r"(?:Got value|Given value): (.*)", message) or ["?"])[-1]
    hint = _hint_of(action)
    if hint is None:  # a whole group
        settings = [flag for flag in _flags(parser) if flag.startswith(f"--{key}.")]
        return f"--{key} takes a YAML file of its settings; these are {', '.join(settings)}"
    if len(inner) > 1:  # a field of an item of a list
        item = next(iter(typing.get_args(hint)), hint)
        hint = typing.get_type_hints(item).get(inner[-1], hint)
    source = f" (or in {', '.join(files)})" if files else ""
    if typing.get_origin(hint) is typing.Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        near = _nearest(value, choices) if difflib.get_close_matches(value, choices) else ""
        return f"{flag}{source}: {value!r} is not one of {', '.join(choices)}{near}"
    name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    return f"{flag}{source}: expected {name}, got {value!r}"


def _as_flags(names: str, flags: Mapping[str, Any]) -> str:
    return ", ".join(f"--{name}" if f"--{name}" in flags else name for name in names.split(", "))
