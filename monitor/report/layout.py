"""How numbers and blocks look: shared by all parts of the report."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


def percent(part: int, whole: int) -> str:
    """`all` and `none` are said by 100 % and 0 % alone: 99.97 % is 99.9 %, and 0.02 % is 0.1 %."""
    if not whole:
        return "-"
    if part in (0, whole):
        return f"{100 * part // whole} %"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f} %"


def size(octets: int) -> str:
    """In powers of ten, with three digits."""
    if octets < 1000:
        return count(octets, "byte")
    value = float(octets)
    unit = ""
    for unit in ("kB", "MB", "GB", "TB"):  # noqa: B007 - the last one is used below
        value /= 1000
        if value < 999.5:
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f} {unit}"


def count(things: int, name: str) -> str:
    return f"{number(things)} {name}{'' if things == 1 else 's'}"


def number(value: int) -> str:
    return f"{value:,}"


def listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def breakdown(whole: str, parts: Mapping[str, int], names: Mapping[str, str]) -> str:
    shown = ", ".join(f"{number(parts[key])} {name}" for key, name in names.items() if parts.get(key))
    return f"{whole}: {shown}" if shown else whole


def title(text: str) -> RenderableType:
    return Padding(Text(text, style="bold"), (1, 0, 0, 0))


def indented(content: RenderableType) -> RenderableType:
    return Padding(content, (0, 0, 0, 2))


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="dim", show_edge=False)
