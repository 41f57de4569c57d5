"""Groups as the text of a rule file: in the order in which they were declared, long expressions as blocks."""

from collections.abc import Sequence
from typing import Final

import yaml

from dashboards.rules.rule import Group

_HEADER: Final = "# Written by `python -m dashboards` from dashboards/rules; changes belong there.\n"
_WIDTH: Final = 1_000_000  # lines are broken where the source breaks them, and nowhere else


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a literal block, and lists set in below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def text(groups: Sequence[Group]) -> str:
    document = {"groups": [group.document() for group in groups]}
    return _HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)
