"""Where tshark and a record are known to differ, and tshark is wrong or says less: the one table of it.

docs/coverage.md tells of each kind and each connection; the tests hold the two together, and each row must
show up, so that none outlives what it excuses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

Release = tuple[int, int]

COMPARED: Final[tuple[Release, ...]] = ((4, 0), (4, 4))
"""The releases of Wireshark whose every difference was looked at. In others a row may or may not show up."""


class Kind(StrEnum):
    """What tshark does otherwise."""

    REFUSED_DATA = "refused_data"
    OVERWRITTEN_STARTTLS = "overwritten_starttls"
    SESSION_IN_ONE_PACKET = "session_in_one_packet"
    TLS_WITHOUT_STARTTLS = "tls_without_starttls"
    CLEAR_TEXT_ON_465 = "clear_text_on_465"
    MORE_AFTER_THE_DOT = "more_after_the_dot"
    BLANK_LINE_BEFORE_THE_DOT = "blank_line_before_the_dot"
    BDAT_WITH_ITS_CHUNK = "bdat_with_its_chunk"


MENDED: Final = frozenset((Kind.MORE_AFTER_THE_DOT, Kind.BLANK_LINE_BEFORE_THE_DOT, Kind.BDAT_WITH_ITS_CHUNK))
"""Seen in 4.0 and no more in 4.4."""

LACKS: Final = "lacks some"
"""As tshark's value of a list: it has only items of the record's list, in order, and not all of them."""


@dataclass(frozen=True, slots=True)
class Known:
    """How tshark and the record of one connection differ."""

    capture: str
    client: str
    """Address and port."""
    frames: tuple[int, ...]
    """Where `tshark -V` shows it."""
    facts: Mapping[str, Any]
    """Which facts differ, and what tshark makes of them."""


def shows_up(kind: Kind, release: Release) -> bool:
    """In a release that was compared."""
    return kind not in MENDED or release == COMPARED[0]


def lacking(*names: str) -> dict[str, Any]:
    """Facts that are lists."""
    return dict.fromkeys(names, LACKS)


KNOWN: Final[Mapping[Kind, tuple[Known, ...]]] = {
    Kind.REFUSED_DATA: (
        Known("misc_commands", "10.77.0.2 23352", (89, 90, 91), lacking("rcpt")),
        Known("misc_commands", "10.77.0.2 33808", (37, 38, 39, 45, 47), lacking("helo", "rcpt")),
        Known("misc_commands", "10.77.0.2 46772", (211, 212, 213, 219, 221), lacking("helo", "rcpt")),
        Known("misc_commands", "10.77.0.2 58394", (148, 149, 150), lacking("rcpt")),
        Known(
            "multi_msg_rset",
            "10.77.0.2 18828",
            (77, 78, 79, 81, 83, 85, 87, 89, 91, 92),
            lacking("helo", "mail", "rcpt", "data"),
        ),
    ),
    Kind.OVERWRITTEN_STARTTLS: (
        Known(
            "striptls",
            "10.79.0.2 45348",
            (30, 31, 38),
            lacking("starttls.codes") | {"starttls.requested": 0, "data[0].wire_bytes": 1259},
        ),
        Known("striptls", "10.79.0.2 45350", (53, 54), lacking("starttls.codes") | {"starttls.requested": 0}),
    ),
    Kind.SESSION_IN_ONE_PACKET: (
        Known("pipelined", "10.77.0.2 34034", (40,), lacking("helo", "mail", "rcpt", "data")),
    ),
    Kind.TLS_WITHOUT_STARTTLS: (Known("misc_commands", "10.77.0.2 33820", (244,), {"bytes.encrypted": 0}),),
    Kind.CLEAR_TEXT_ON_465: (Known("smtps_465", "10.77.0.2 33980", (120,), lacking("helo")),),
    Kind.MORE_AFTER_THE_DOT: (Known("pipelined", "10.77.0.2 34032", (30,), lacking("mail", "rcpt")),),
    Kind.BLANK_LINE_BEFORE_THE_DOT: (
        Known("ipv6", "fd77::2 51485", (171,), {"data[0].wire_bytes": 264}),
        Known("striptls", "10.79.0.2 45352", (74,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 21710", (128,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 24323", (393,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 24892", (57,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 33225", (107,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 33273", (703,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 33501", (372,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 34133", (458,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 36947", (682,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 38636", (485,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 44409", (36,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 45375", (15,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 45616", (86,), {"data[0].wire_bytes": 264}),
        Known("swaks_mix", "10.77.0.2 49323", (639,), {"data[0].wire_bytes": 303}),
    ),
    Kind.BDAT_WITH_ITS_CHUNK: (
        Known("bdat", "10.77.0.2 55318", (13,), lacking("data")),
        Known("bdat", "10.77.0.2 55330", (38, 40, 44), lacking("data")),
        Known("bdat", "10.77.0.2 55346", (66,), lacking("data")),
        Known("bdat", "10.77.0.2 55352", (94,), lacking("data")),
        Known("bdat", "10.77.0.2 55358", (113,), lacking("data")),
        Known("bdat", "10.77.0.2 55370", (132, 136), lacking("data")),
        Known("bdat", "10.77.0.2 55374", (160,), {"data[0].wire_bytes": 0}),
        Known("bdat", "10.77.0.2 55382", (187, 353), lacking("data")),
        Known("bdat", "10.77.0.2 55406", (607,), lacking("data")),
        Known("bdat", "10.77.0.2 55414", (626,), lacking("data")),
        Known("bdat", "10.77.0.2 55430", (645,), lacking("data")),
        Known("bdat", "10.77.0.2 55452", (1287,), lacking("mail", "rcpt", "data")),
        Known("bdat", "10.77.0.2 58676", (663,), lacking("data")),
        Known("bdat", "10.77.0.2 58686", (688, 691, 695), lacking("data")),
        Known("bdat", "10.77.0.2 58692", (716,), lacking("data")),
        Known("bdat", "10.77.0.2 58698", (741,), lacking("data")),
        Known("bdat", "10.77.0.2 58714", (760,), lacking("data")),
        Known("bdat", "10.77.0.2 58726", (779, 783), lacking("data")),
        Known("bdat", "10.77.0.2 58742", (806,), {"data[0].wire_bytes": 0}),
        Known("bdat", "10.77.0.2 58754", (833, 984), lacking("data")),
        Known("bdat", "10.77.0.2 58772", (1218,), lacking("data")),
        Known("bdat", "10.77.0.2 58774", (1237,), lacking("data")),
        Known("bdat", "10.77.0.2 58780", (1255,), lacking("data")),
        Known("mid", "10.77.1.102 38225", (1254,), lacking("data")),
        Known("mid", "10.77.1.103 34355", (1687,), lacking("mail", "rcpt", "data")),
        Known("mid", "10.77.1.108 37965", (10792,), lacking("data")),
        Known("mid", "10.77.1.115 32449", (9278,), lacking("data")),
        Known("mid", "10.77.1.122 26871", (12223, 12243), lacking("data")),
        Known("mid", "10.77.1.128 21599", (22423, 22435), lacking("data")),
        Known("mid", "10.77.1.128 56799", (22065,), lacking("data")),
        Known("mid", "10.77.1.146 59111", (657, 688), lacking("data")),
        Known("mid", "10.77.1.38 32687", (6186,), lacking("data")),
        Known("mid", "10.77.1.50 17309", (5058, 5062), lacking("data")),
        Known("mid", "10.77.1.71 17781", (5408,), lacking("data")),
        Known("mid", "10.77.1.77 61707", (23102,), lacking("data")),
        Known("mid", "10.77.1.97 25341", (11858,), lacking("data")),
    ),
}
