"""Where in a living process some bytes are."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r\S+) \S+ \S+ \S+\s*(.*)")
_AT_ONCE: Final = 16 * 1024**2


def found_in(process: int, needles: Iterable[bytes]) -> Counter[str]:
    """How often any of them is there, by what is mapped: a file's name, [heap], or nothing for other memory.

    Needs root. The process goes on meanwhile.
    """
    pattern = re.compile(b"|".join(map(re.escape, needles)))
    found: Counter[str] = Counter()
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            mapping = _MAPPING.fullmatch(line)
            if mapping is None or mapping[4] in ("[vvar]", "[vsyscall]"):
                continue
            begin, end = int(mapping[1], 16), int(mapping[2], 16)
            try:
                memory.seek(begin)
                content = memory.read(end - begin)
            except (OSError, OverflowError):
                continue
            count = len(pattern.findall(content))
            if count:
                found[mapping[4]] += count
    return found
