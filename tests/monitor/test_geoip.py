"""Where an address is, by real .mmdb files: of every publisher's shape, broken, hostile, and replaced."""

import gzip
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.geoip import (
    DATABASE_BYTES_MAX,
    ORGANIZATION_CHARS_MAX,
    REMEMBERED_MAX,
    GeoDatabaseError,
    GeoDatabases,
)
from monitor.sessions.record import Location
from tests.mmdb import write_mmdb

MAXMIND_COUNTRY = {
    "continent": {"code": "EU", "names": {"en": "Europe"}},
    "country": {"geoname_id": 2921044, "iso_code": "DE", "names": {"en": "Germany"}},
    "registered_country": {"iso_code": "US", "names": {"en": "United States"}},
}
MAXMIND_AS = {"autonomous_system_number": 64496, "autonomous_system_organization": "Example GmbH"}

Locate = Callable[[Any], Location | None]


@pytest.fixture
def locate_by(tmp_path: Path) -> Locate:
    """What is said of an address for which a database has this entry."""

    def locate(entry: Any) -> Location | None:
        return GeoDatabases([write_mmdb(tmp_path / "one.mmdb", {"192.0.2.0/24": entry})]).locate("192.0.2.1")

    return locate


@pytest.mark.parametrize(
    ("entry", "location"),
    [
        pytest.param(MAXMIND_COUNTRY, Location("DE", None, None), id="MaxMind and DB-IP, country"),
        pytest.param(MAXMIND_AS, Location(None, 64496, "Example GmbH"), id="MaxMind and DB-IP, AS"),
        pytest.param({"country_code": "DE"}, Location("DE", None, None), id="ip-location-db"),
        pytest.param(
            {
                "asn": "AS64496",
                "as_name": "Example GmbH",
                "as_domain": "example.com",
                "country": "Germany",
                "country_code": "DE",
                "continent_code": "EU",
            },
            Location("DE", 64496, "Example GmbH"),
            id="IPinfo Lite",
        ),
        pytest.param(
            {"country": "DE", "country_name": "Germany", "asn": "AS64496", "as_name": "Example GmbH"},
            Location("DE", 64496, "Example GmbH"),
            id="IPinfo country_asn",
        ),
        pytest.param(
            {
                "country": {
                    "iso_code": "DE",
                    "AutonomousSystemNumber": "64496",
                    "AutonomousSystemOrganization": "EXAMPLE-AS",
                }
            },
            Location("DE", 64496, "EXAMPLE-AS"),
            id="Geo Open",
        ),
    ],
)
def test_the_fields_of_every_publisher_are_understood(
    locate_by: Locate, entry: Any, location: Location
) -> None:
    assert locate_by(entry) == location


def test_where_a_block_is_registered_is_not_where_its_addresses_are(locate_by: Locate) -> None:
    assert locate_by({"registered_country": {"iso_code": "US"}}) is None


@pytest.mark.parametrize(
    "country",
    [
        "de",
        "D",
        "DEU",
        "",
        "DE\n",
        "ÄÖ",
        'D"',
        "D\u0130",
        "ZZ",
        "XX",
        "EU",
        "AP",
        49,
        True,
        ["DE"],
        {"en": "DE"},
    ],
)
def test_what_is_no_country_is_unknown(locate_by: Locate, country: Any) -> None:
    for entry in ({"country": {"iso_code": country}}, {"country_code": country}, {"country": country}):
        assert locate_by(entry) is None


@pytest.mark.parametrize("number", [0, 2**32, True, "AS", "ASAS1", "AS-1", "AS1 ", "AS१", "", "9" * 5_000])
def test_what_is_no_number_of_an_as_is_unknown(locate_by: Locate, number: Any) -> None:
    assert locate_by({"autonomous_system_number": number}) is None
    assert locate_by({"asn": number}) is None


def test_the_largest_number_of_an_as_is_one(locate_by: Locate) -> None:
    assert locate_by({"asn": f"AS{2**32 - 1}"}) == Location(None, 2**32 - 1, None)


@pytest.mark.parametrize("entry", ["DE", ["DE"], 7, {"country": []}, {"country": {"iso_code": {}}}, {}])
def test_an_entry_of_another_shape_is_unknown(locate_by: Locate, entry: Any) -> None:
    assert locate_by(entry) is None


def test_a_name_without_end_is_cut_and_one_without_letters_is_none(locate_by: Locate) -> None:
    location = locate_by({"asn": 1, "as_name": " " + "x" * 100_000})
    assert location == Location(None, 1, "x" * ORGANIZATION_CHARS_MAX)
    assert locate_by({"asn": 1, "as_name": " \n "}) == Location(None, 1, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["country", "country_code", "asn", "as_name", "autonomous_system_number"]),
        st.recursive(
            st.text(max_size=3) | st.booleans() | st.integers(0, 2**40) | st.floats(allow_nan=False),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["iso_code", "AutonomousSystemNumber"]), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    )
)
def test_whatever_an_entry_says_what_comes_out_is_a_location(locate_by: Locate, entry: Any) -> None:
    location = locate_by(entry)
    if location is None:
        return
    assert location != Location(None, None, None)
    assert location.country is None or (
        len(location.country) == 2 and location.country.isascii() and location.country.isupper()
    )
    assert location.asn is None or (type(location.asn) is int and 0 < location.asn < 2**32)
    assert location.as_organization is None or location.as_organization.strip() == location.as_organization


def test_addresses_of_both_versions_are_known_and_a_mapped_one_is_ipv4(tmp_path: Path) -> None:
    path = write_mmdb(
        tmp_path / "both.mmdb",
        {"192.0.2.0/24": {"country_code": "DE"}, "2001:db8::/32": {"country_code": "FR"}},
    )
    databases = GeoDatabases([path])
    assert databases.locate("192.0.2.1") == Location("DE", None, None)
    assert databases.locate("::ffff:192.0.2.1") == Location("DE", None, None)
    assert databases.locate("2001:db8::1") == Location("FR", None, None)
    assert databases.locate("198.51.100.1") is None
    assert databases.locate("2001:db9::1") is None


def test_a_database_of_ipv4_knows_no_ipv6_and_nothing_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_mmdb(tmp_path / "v4.mmdb", {"192.0.2.0/24": {"country_code": "DE"}}, ip_version=4)
    databases = GeoDatabases([path])
    assert databases.locate("2001:db8::1") is None
    assert databases.locate("::ffff:192.0.2.1") == Location("DE", None, None)
    assert databases.locate("192.0.2.1") == Location("DE", None, None)
    assert not caplog.records


@pytest.mark.parametrize("text", ["", "mail.example", "192.0.2", "192.0.2.1/24", "fe80::1%eth0", "\0"])
def test_what_is_no_address_is_nowhere(tmp_path: Path, text: str) -> None:
    databases = GeoDatabases([write_mmdb(tmp_path / "one.mmdb", {"192.0.2.0/24": {"country_code": "DE"}})])
    assert databases.locate(text) is None


def _two(tmp_path: Path, first: Any, second: Any) -> Location | None:
    paths = [
        write_mmdb(tmp_path / "first.mmdb", {"192.0.2.0/24": first} if first else {"198.51.100.0/24": {}}),
        write_mmdb(tmp_path / "second.mmdb", {"192.0.2.0/24": second}),
    ]
    return GeoDatabases(paths).locate("192.0.2.1")


def test_country_and_as_may_come_from_two_files(tmp_path: Path) -> None:
    both = Location("DE", 64496, "Example GmbH")
    assert _two(tmp_path, MAXMIND_COUNTRY, MAXMIND_AS) == both
    assert _two(tmp_path, MAXMIND_AS, MAXMIND_COUNTRY) == both
    assert _two(tmp_path, None, MAXMIND_AS) == Location(None, 64496, "Example GmbH")


def test_the_first_file_that_knows_a_thing_is_believed(tmp_path: Path) -> None:
    assert _two(tmp_path, {"country_code": "DE"}, {"country_code": "FR"}) == Location("DE", None, None)
    assert _two(tmp_path, {"country_code": "ZZ"}, {"country_code": "FR"}) == Location("FR", None, None)


def test_a_name_stands_only_beside_the_number_that_it_belongs_to(tmp_path: Path) -> None:
    assert _two(tmp_path, {"asn": 1}, {"asn": 1, "as_name": "one"}) == Location(None, 1, "one")
    assert _two(tmp_path, {"asn": 1}, {"asn": 2, "as_name": "two"}) == Location(None, 1, None)
    assert _two(tmp_path, {"as_name": "?"}, {"asn": 2, "as_name": "two"}) == Location(None, 2, "two")


def _problem(path: Path) -> str:
    with pytest.raises(GeoDatabaseError) as caught:
        GeoDatabases([str(path)])
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: cannot be read as a GeoIP database: ")
    return text.removeprefix(f"{path}: cannot be read as a GeoIP database: ")


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    assert _problem(tmp_path / "no.mmdb") == "No such file or directory; name a .mmdb file with --geoip"


def test_a_folder_a_pipe_or_a_device_is_no_database(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert _problem(pipe) == "it is no regular file; name a .mmdb file with --geoip"
    assert _problem(Path("/dev/zero")) == "it is no regular file; name a .mmdb file with --geoip"
    assert _problem(tmp_path).startswith("Is a directory; ")


def test_a_compressed_database_is_to_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "country.mmdb.gz"
    plain = write_mmdb(tmp_path / "country.mmdb", {"192.0.2.0/24": MAXMIND_COUNTRY})
    path.write_bytes(gzip.compress(Path(plain).read_bytes()))
    assert _problem(path) == "it is compressed; unpack it, and name the .mmdb file in it"


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mmdb"
    path.touch()
    os.truncate(path, DATABASE_BYTES_MAX + 1)
    assert _problem(path) == "it has more than 512 MiB; name a .mmdb file with --geoip"


def test_a_file_without_permission_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "secret.mmdb"
    write_mmdb(path, {"192.0.2.0/24": MAXMIND_COUNTRY})
    path.chmod(0)
    tmp_path.chmod(0o755)
    # Root reads everything, so the attempt is made by a process that has given its capabilities away.
    code = (
        "import os, sys\n"
        "descriptor = os.open('.', os.O_RDONLY | os.O_DIRECTORY)\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from monitor.geoip import GeoDatabaseError, GeoDatabases\n"
        "os.fchdir(descriptor)\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([])\n"
        "    os.setresuid(65534, 65534, 65534)\n"
        "try:\n"
        "    GeoDatabases(['secret.mmdb'])\n"
        "except GeoDatabaseError as error:\n"
        "    print(error)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, root], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == (
        "secret.mmdb: cannot be read as a GeoIP database: Permission denied; "
        "let this user read it, or name another file with --geoip\n"
    ), done.stderr


def test_what_is_no_database_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = Path(write_mmdb(tmp_path / "whole.mmdb", {"192.0.2.0/24": MAXMIND_COUNTRY})).read_bytes()
    path = tmp_path / "cut.mmdb"
    # The last four bytes say when the file was built: nothing is missed without them, nor are they looked at.
    for size in range(len(whole) - 4):
        path.write_bytes(whole[:size])
        assert _problem(path).startswith("it is not in MaxMind's DB format, or not whole; "), size
    path.write_bytes(b"#!/bin/sh\n" * 1_000)
    assert _problem(path).startswith("it is not in MaxMind's DB format, or not whole; ")


DAMAGED = b"\xff" * 64  # over the data section: pointers to nowhere, text that is no UTF-8


def _damage(path: str) -> None:
    """Leaves the tree and the description alone, so that the file opens."""
    contents = Path(path).read_bytes()
    begin = contents.index(b"iso_code") - 16
    Path(path).write_bytes(contents[:begin] + DAMAGED + contents[begin + len(DAMAGED) :])


def test_damage_is_warned_of_once_names_no_address_and_the_other_file_still_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    country = write_mmdb(tmp_path / "country.mmdb", {"192.0.2.0/24": MAXMIND_COUNTRY})
    _damage(country)
    asn = write_mmdb(tmp_path / "asn.mmdb", {"192.0.2.0/24": MAXMIND_AS})
    databases = GeoDatabases([country, asn])
    for host in range(5):
        assert databases.locate(f"192.0.2.{host}") == Location(None, 64496, "Example GmbH")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].startswith(f"{country}: damaged; ")
    assert "192.0.2" not in caplog.text


def test_no_damage_whatever_raises_or_ends_the_process(tmp_path: Path) -> None:
    networks = {  # several entries share their texts by pointers, which damage turns elsewhere
        f"192.0.{number}.0/24": {
            **MAXMIND_COUNTRY,
            "autonomous_system_number": number,
            "as_name": f"AS {number}",
        }
        for number in range(8)
    }
    contents = Path(write_mmdb(tmp_path / "whole.mmdb", networks)).read_bytes()
    path = tmp_path / "damaged.mmdb"
    opened = 0
    for seed in range(1_000):
        chance = random.Random(seed)
        damaged = bytearray(contents)
        for _ in range(chance.choice((1, 2, 5, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            databases = GeoDatabases([str(path)])
        except GeoDatabaseError:
            continue
        opened += 1
        for address in (
            *(f"192.0.{number}.1" for number in range(8)),
            "2001:db8::1",
            "::",
            "255.255.255.255",
        ):
            databases.locate(address)
    assert opened > 100, "the damage was such that nothing was looked up"


def test_a_file_that_is_written_over_in_place_changes_nothing_until_it_is_read_anew(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "one.mmdb", {"192.0.2.0/24": {"country_code": "DE"}})
    databases = GeoDatabases([path])
    os.truncate(path, 0)  # with a map of the file, the next look-up would be SIGBUS
    assert databases.locate("192.0.2.1") == Location("DE", None, None)


def test_a_file_that_was_replaced_is_read_anew_and_what_was_remembered_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = write_mmdb(tmp_path / "one.mmdb", {"192.0.2.0/24": {"country_code": "DE"}})
    databases = GeoDatabases([path])
    assert databases.locate("192.0.2.1") == Location("DE", None, None)
    os.replace(write_mmdb(tmp_path / "new.mmdb", {"192.0.2.0/24": {"country_code": "FR"}}), path)
    assert databases.locate("192.0.2.1") == Location("DE", None, None)
    databases.reload()
    assert databases.locate("192.0.2.1") == Location("FR", None, None)
    assert caplog.messages == ["GeoIP databases read anew: 1"]


def test_what_cannot_be_read_anew_stays_as_it_was_and_the_rest_is_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    country = write_mmdb(tmp_path / "country.mmdb", {"192.0.2.0/24": {"country_code": "DE"}})
    asn = write_mmdb(tmp_path / "asn.mmdb", {"192.0.2.0/24": {"asn": 1}})
    databases = GeoDatabases([country, asn])
    Path(country).write_bytes(b"half a download")
    write_mmdb(tmp_path / "asn.mmdb", {"192.0.2.0/24": {"asn": 2}})
    databases.reload()
    assert databases.locate("192.0.2.1") == Location("DE", 2, None)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].endswith("; going on with what was read before")
    os.unlink(country)
    databases.reload()
    assert databases.locate("192.0.2.1") == Location("DE", 2, None)


def test_when_closed_no_address_is_known(tmp_path: Path) -> None:
    path = write_mmdb(tmp_path / "one.mmdb", {"192.0.2.0/24": {"country_code": "DE"}})
    databases = GeoDatabases([path])
    assert databases.locate("192.0.2.1") is not None
    databases.close()
    databases.close()
    assert databases.locate("192.0.2.1") is None


def test_no_more_answers_are_remembered_than_the_bound_says(tmp_path: Path) -> None:
    databases = GeoDatabases([write_mmdb(tmp_path / "one.mmdb", {"10.0.0.0/8": {"country_code": "DE"}})])
    for number in range(REMEMBERED_MAX + 100):
        assert databases.locate(f"10.1.{number >> 8}.{number & 255}") is not None
    assert databases.remembered == REMEMBERED_MAX
