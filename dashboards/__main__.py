"""Writes dashboards/generated, or compares it with its source.

python -m dashboards            writes; deletes nothing
python -m dashboards --check    one line for each file that differs, is missing or left over; exit status 1
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from dashboards import rules
from dashboards.boards import all_boards

GENERATED: Final = Path(__file__).parent / "generated"


def files() -> dict[str, str]:
    """Text by path under `generated`."""
    boards = {f"boards/{board.uid}.json": board.json() for board in all_boards()}
    return boards | {f"rules/{name}": text for name, text in rules.files().items()}


def differences(folder: Path, wanted: dict[str, str]) -> list[str]:
    """One line for each file that is not as its source would make it."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    lines = [f"{name}: nothing makes this file" for name in sorted(found - wanted.keys())]
    for name, text in sorted(wanted.items()):
        if name not in found:
            lines.append(f"{name}: missing")
        elif (folder / name).read_text(encoding="utf-8") != text:
            lines.append(f"{name}: differs from its source")
    return lines


def write(folder: Path, wanted: dict[str, str]) -> None:
    for name, text in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dashboards", description="Writes boards and rules.")
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 if a file differs")
    if not parser.parse_args().check:
        write(GENERATED, files())
        return 0
    different = differences(GENERATED, files())
    for line in different:
        sys.stdout.write(f"dashboards/generated/{line}\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
