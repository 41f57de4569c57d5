"""The TOML file of `watch`: its keys are the options of the command, without the dashes in front.

What is wrong in it is said with file and line, and with the key that was probably meant.
"""

import re
import tomllib
from difflib import get_close_matches
from typing import Any

import click

from monitor.files import open_to_read, read_believed


class SettingsError(click.ClickException):
    """One line: which file, which line, what to do."""

    exit_code = 2


def load(path: str, context: click.Context) -> dict[str, Any]:
    """The file's values by parameter name, as click's `default_map` wants them, tried against the options'
    own types. Raises SettingsError."""
    try:
        text = read_believed(open_to_read(path), path).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{path}: cannot be read: {reason}; check --config") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_at_line_in_front(path, str(error))) from error
    except RecursionError as error:
        raise SettingsError(f"{path}: is nested too deeply; no key takes more than a list") from error
    except ValueError as error:  # Python reads no number of so many digits
        raise SettingsError(f"{path}: a number has too many digits") from error

    options = {option.opts[-1].removeprefix("--"): option for option in _settable(context)}
    settings: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}:{_line_of(key, text)}"
        if key not in options:
            raise SettingsError(f"{where}: unknown key {key!r}; {_nearest(key, options)}")
        option = options[key]
        assert option.name is not None
        settings[option.name] = _checked(where, key, value, option, context)
    return settings


def _settable(context: click.Context) -> list[click.Option]:
    return [
        param
        for param in context.command.params
        if isinstance(param, click.Option) and param.name not in ("config", "check", "help")
    ]


def _checked(where: str, key: str, value: Any, option: click.Option, context: click.Context) -> Any:
    if key == "ports":
        is_right = isinstance(value, str) or (
            isinstance(value, list) and value != [] and all(type(port) is int for port in value)
        )
        wanted = "a list of numbers, as [25, 587]"
    elif option.is_flag:
        is_right, wanted = type(value) is bool, "true or false"
    elif isinstance(option.type, click.IntRange):
        is_right, wanted = type(value) is int, "a number"
    elif key == "countries":
        is_right = type(value) in (str, int) or (
            isinstance(value, list) and value != [] and all(isinstance(code, str) for code in value)
        )
        wanted = "a number, or a list of codes, as ['DE', 'FR']"
    elif option.multiple:
        value = [value] if isinstance(value, str) else value
        is_right = isinstance(value, list) and all(isinstance(part, str) for part in value)
        wanted = "a string or a list of strings"
    else:
        is_right, wanted = isinstance(value, str), "a string"
    if not is_right:
        raise SettingsError(f"{where}: {key} must be {wanted}")
    try:
        option.type_cast_value(context, value)
    except click.BadParameter as error:
        raise SettingsError(f"{where}: {key}: {error.message}") from error
    return value


def _nearest(key: str, known: dict[str, click.Option]) -> str:
    close = get_close_matches(key.replace("_", "-").lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(known))}"


def _line_of(key: str, text: str) -> int:
    """Where a top-level key stands. tomllib doesn't say."""
    pattern = re.compile(rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return number
    return 1


def _at_line_in_front(path: str, message: str) -> str:
    """tomllib says `What (at line 3, column 5)`, or `(at end of document)`."""
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message)
    return f"{path}:{found[2]}: {found[1]}" if found else f"{path}: {message}"
