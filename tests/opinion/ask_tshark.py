"""Asks tshark what it makes of a capture. The program is `tshark`, or what the environment's TSHARK names.

Nobody's own settings matter: its folder for settings is an empty one, and the preferences that decide what
is compared are given on its command line.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = os.environ.get("TSHARK", "tshark")

PREFERENCES: Final = (
    "tcp.desegment_tcp_streams:TRUE",
    "tcp.reassemble_out_of_order:TRUE",
    "tcp.analyze_sequence_numbers:TRUE",
    "tcp.check_checksum:FALSE",  # locally sent packets have none yet
    "ip.defragment:TRUE",
    "smtp.desegment_lines:TRUE",
    "smtp.desegment_data:TRUE",
    "smtp.decryption:FALSE",  # with it, an AUTH response is read as if it were the command it spells
    "tls.desegment_ssl_records:TRUE",
    "tls.desegment_ssl_application_data:TRUE",
    "tls.keylog_file:",
)

SEVERAL: Final = "\x1f"
"""Between the values of a field that a packet has several times: no name contains it."""

Node = list[tuple[str, Any]]
"""A JSON object of tshark's: keys in order, and several times if need be."""


def missing() -> str | None:
    """Why there is nobody to ask, or None."""
    return None if shutil.which(PROGRAM) else f"{PROGRAM} is not installed; scripts/setup as root installs it"


@functools.cache
def release() -> tuple[int, int]:
    """As (4, 0)."""
    number = re.search(r"^TShark \(Wireshark\) (\d+)\.(\d+)", _ask("--version"), flags=re.MULTILINE)
    assert number, f"{PROGRAM} doesn't say its version"
    return int(number[1]), int(number[2])


@functools.cache
def known_fields() -> frozenset[str]:
    """The names of all fields that this version has."""
    rows = (line.split("\t") for line in _ask("-G", "fields").splitlines())
    return frozenset(row[2] for row in rows if row[0] == "F")


def knows_ja4() -> bool:
    """4.2 and later."""
    return "tls.handshake.ja4" in known_fields()


@functools.cache
def cipher_names() -> dict[int, str]:
    """tshark's names of cipher suites by their numbers."""
    rows = re.findall(
        r"^V\ttls\.handshake\.ciphersuite\t(\d+)\t(\S+)$", _ask("-G", "values"), flags=re.MULTILINE
    )
    return {int(number): name for number, name in rows}


def packets(capture: Path, fields: tuple[str, ...]) -> list[dict[str, list[str]]]:
    """The values of these fields in each TCP packet; none of a field that this version doesn't have."""
    here = [name for name in fields if name in known_fields()]
    wanted = [argument for name in here for argument in ("-e", name)]
    output = _read(capture, "tcp", "-T", "fields", "-E", f"aggregator={SEVERAL}", *wanted)
    return [
        {
            name: value.split(SEVERAL) if value else []
            for name, value in zip(here, line.split("\t"), strict=True)
        }
        for line in output.splitlines()
    ]


def smtp_trees(capture: Path) -> list[tuple[int, Node]]:
    """What the SMTP dissector made of each packet that it was given: frame number and tree."""
    output = _read(capture, "smtp", "-T", "json", "-J", "frame smtp")
    found = []
    for packet in json.loads(output, object_pairs_hook=list):
        layers: Node = dict(dict(packet)["_source"])["layers"]
        frame = int(dict(dict(layers)["frame"])["frame.number"])
        found += [(frame, tree) for name, tree in layers if name == "smtp"]
    return found


def _read(capture: Path, display_filter: str, *arguments: str) -> str:
    preferences = [argument for preference in PREFERENCES for argument in ("-o", preference)]
    return _ask("-n", *preferences, "-r", str(capture), "-Y", display_filter, *arguments)


def _ask(*arguments: str) -> str:
    with tempfile.TemporaryDirectory(prefix="tshark-") as empty:
        environment = {**os.environ, "WIRESHARK_CONFIG_DIR": empty, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        done = subprocess.run(
            [PROGRAM, *arguments], env=environment, capture_output=True, check=False, text=True, timeout=120
        )
    if done.returncode:
        raise AssertionError(f"{PROGRAM} {' '.join(arguments)}: {done.stderr}")
    return done.stdout
