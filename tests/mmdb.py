"""Small GeoIP databases, written for a test."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]  # ships no types


def write_mmdb(path: Path, networks: Mapping[str, Any], ip_version: int = 6) -> str:
    """`{"192.0.2.0/24": {"country_code": "DE"}}` -> a file, whose path is returned as the options want it.

    With IP version 6 the file holds networks of both, as those of all publishers do; with 4 only of IPv4.
    """
    writer = MMDBWriter(ip_version, "Test", ipv4_compatible=ip_version == 6)
    for network, entry in networks.items():
        writer.insert_network(IPSet([network]), entry)
    writer.to_db_file(str(path))
    return str(path)
