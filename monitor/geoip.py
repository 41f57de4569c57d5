"""Where an address is, by databases that the operator brings: files in MaxMind's DB format (.mmdb).

The format says nothing of the fields; each publisher has their own. Known are those of MaxMind (GeoLite2 and
GeoIP2, Country, City and ASN), DB-IP (the same), ip-location-db, IPinfo (Lite, and the older country_asn) and
Geo Open. Country and AS often come in two files; then the first file that knows a thing is believed.

What a database says goes into records and a label, so nothing of it is taken on trust: a country is two
letters, an AS has a number that can be one, and the rest is unknown.

A file is read into memory once, and by maxminddb's reader in Python. Its extension in C is faster, but maps
the file, so a `cp` or `curl -o` over the old database ends the whole process with SIGBUS; and of files in
which a few bytes were changed, some in a hundred end it with SIGSEGV (maxminddb 3.2.0). The reader in Python
raises, and bounds what one entry may grow to.
"""

import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, BinaryIO, Final

import maxminddb

from monitor.files import open_to_read
from monitor.sessions.record import Location

DATABASE_BYTES_MAX: Final = 512 * 1024 * 1024
"""Chosen to be several times the largest country, city and AS databases, which have up to some 130 MB, and
what a monitor may still take of a mail server's memory. While a file is read anew, it is there twice."""

REMEMBERED_MAX: Final = 4_096
"""Answers kept. Chosen so that the pools of the large senders fit. All take about one megabyte, with the
longest names three."""

ORGANIZATION_CHARS_MAX: Final = 128
"""Twice what a certificate's organizationName may have (RFC 5280 appendix A.1, ub-organization-name): names
are whole, and a database that was made to do harm can't swell every record."""

ASN_MAX: Final = 2**32 - 1  # RFC 6793; 0 is no AS's number, and stands for "not routed" (RFC 7607)

_COUNTRY: Final = re.compile(r"[A-Z]{2}")  # ISO 3166-1 alpha-2

_NO_COUNTRIES: Final = frozenset(
    # What stands where a publisher knows no country: ZZ and XX for none at all (ISO 3166-1 leaves both to its
    # users; CLDR's "unknown region" is ZZ), AP and EU for "somewhere in Asia and the Pacific, in Europe", as
    # the registries' own lists have them.
    ("AP", "EU", "XX", "ZZ")
)

_COUNTRY_FIELDS: Final = (
    ("country", "iso_code"),  # MaxMind, DB-IP, Geo Open. Not registered_country: that is where the block's
    # holder is, which may be elsewhere than the address.
    ("country_code",),  # ip-location-db, IPinfo Lite, whose `country` is the name
    ("country",),  # IPinfo's older country_asn: the code
)
_ASN_FIELDS: Final = (
    ("autonomous_system_number",),  # MaxMind, DB-IP, ip-location-db
    ("asn",),  # IPinfo: "AS15169"
    ("country", "AutonomousSystemNumber"),  # Geo Open: "15169"
)
_ORGANIZATION_FIELDS: Final = (
    ("autonomous_system_organization",),
    ("as_name",),
    ("country", "AutonomousSystemOrganization"),
)

_GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952 section 2.3.1

_LOG: Final = logging.getLogger(__name__)


class GeoDatabaseError(Exception):
    """A file that can't be used; `str` is one line: which file, what is wrong, what to do."""

    def __init__(self, path: str, what: str, remedy: str = "name a .mmdb file with --geoip") -> None:
        self.problem = f"{path}: cannot be read as a GeoIP database: {what}"
        """Without what to do."""
        super().__init__(f"{self.problem}; {remedy}")


class GeoDatabases:
    """One or more databases, asked as one. Not for more than one thread."""

    def __init__(self, paths: Iterable[str], to_read: Callable[[str], int] = open_to_read) -> None:
        """In the order in which they are believed. Raises GeoDatabaseError.

        `to_read` gives a descriptor for a path, or raises OSError: for who may not open it himself.
        """
        self._open_to_read = to_read
        self._databases = [_Database(path, self._open_to_read) for path in paths]
        self._remembering = lru_cache(REMEMBERED_MAX)(self._locate)

    def locate(self, address: str) -> Location | None:
        """None where no database knows the address, and for what is no address. Never raises.

        Measured with a country and an AS database of 60,000 networks each: 20,000 addresses a second; 150,000
        by the extension in C; 4,000,000 of those remembered. A session costs some 300 microseconds without
        it, so the 50 of a look-up are worth remembering, and not worth the extension.
        """
        return self._remembering(address)

    @property
    def remembered(self) -> int:
        """How many answers are kept."""
        return self._remembering.cache_info().currsize

    def _locate(self, address: str) -> Location | None:
        parsed = _parse(address)
        if parsed is None:
            return None
        country = asn = organization = None
        for database in self._databases:
            entry = database.entry(parsed)
            if not entry:
                continue
            if country is None:
                country = _country(_values(entry, _COUNTRY_FIELDS))
            asn_here = _asn(_values(entry, _ASN_FIELDS))
            organization_here = _organization(_values(entry, _ORGANIZATION_FIELDS))
            # Two databases may see an address in different ASes: a name stands only beside its own number.
            if asn is None and asn_here is not None:
                asn, organization = asn_here, organization_here
            elif asn == asn_here:
                organization = organization or organization_here
        if country is None and asn is None and organization is None:
            return None
        return Location(country, asn, organization)

    def reload(self) -> None:
        """Reads all files anew; where one can't be read now, its old contents stay. One line in the log."""
        problems = []
        for position, old in enumerate(self._databases):
            try:
                new = _Database(old.path, self._open_to_read)
            except GeoDatabaseError as error:
                problems.append(error.problem)
            else:
                self._databases[position] = new
        self._remembering.cache_clear()
        if problems:
            _LOG.warning("%s; going on with what was read before", "; ".join(problems))
        else:
            _LOG.info("GeoIP databases read anew: %d", len(self._databases))

    def close(self) -> None:
        """Gives the memory back; afterwards no address is known. May be called twice."""
        self._databases.clear()
        self._remembering.cache_clear()


class _Database:
    """One file, as it was when it was opened."""

    __slots__ = ("_has_ipv6", "_is_warned", "_reader", "path")

    def __init__(self, path: str, to_read: Callable[[str], int]) -> None:
        """Raises GeoDatabaseError."""
        self.path = path
        self._reader = _read(path, to_read)
        self._has_ipv6 = self._reader.metadata().ip_version == 6
        self._is_warned = False

    def entry(self, address: IPv4Address | IPv6Address) -> Mapping[str, Any] | None:
        """What the file has on the address, if that is a map; never raises."""
        if address.version == 6 and not self._has_ipv6:
            return None
        try:
            found = self._reader.get(address)
        except Exception:  # damaged bytes mean anything: InvalidDatabaseError, UnicodeDecodeError, TypeError
            self._warn_of_damage()
            return None
        return found if isinstance(found, dict) else None

    def _warn_of_damage(self) -> None:
        """Once for each time the file was read. The library's own message is left out: it names the
        address."""
        if not self._is_warned:
            self._is_warned = True
            _LOG.warning("%s: damaged; some addresses have no country or AS: fetch it anew", self.path)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _read(path: str, to_read: Callable[[str], int]) -> maxminddb.Reader:
    try:
        with open(path, "rb", opener=lambda name, _: to_read(name)) as file:
            _refuse_what_is_no_database(path, file)
            try:
                return maxminddb.open_database(file, maxminddb.MODE_FD)
            except OSError:
                raise
            except Exception as error:  # as above: what is no database means anything
                raise GeoDatabaseError(path, "it is not in MaxMind's DB format, or not whole") from error
    except PermissionError as error:
        raise GeoDatabaseError(
            path, str(error.strerror), "let this user read it, or name another file with --geoip"
        ) from error
    except OSError as error:
        raise GeoDatabaseError(path, str(error.strerror)) from error


def _refuse_what_is_no_database(path: str, file: BinaryIO) -> None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise GeoDatabaseError(path, "it is no regular file")
    if status.st_size > DATABASE_BYTES_MAX:
        raise GeoDatabaseError(path, f"it has more than {DATABASE_BYTES_MAX // 1024**2} MiB")
    if file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC:
        raise GeoDatabaseError(path, "it is compressed", "unpack it, and name the .mmdb file in it")
    file.seek(0)


def _values(entry: Mapping[str, Any], fields: Sequence[tuple[str, ...]]) -> Iterable[Any]:
    """What stands under each of the fields that are there."""
    for field in fields:
        value: Any = entry
        for name in field:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            yield value


def _country(values: Iterable[Any]) -> str | None:
    for value in values:
        if isinstance(value, str) and _COUNTRY.fullmatch(value) and value not in _NO_COUNTRIES:
            return value
    return None


def _asn(values: Iterable[Any]) -> int | None:
    for value in values:
        number = _number_of_text(value) if isinstance(value, str) else value
        if type(number) is int and 1 <= number <= ASN_MAX:  # not bool, which is an int too
            return number
    return None


def _number_of_text(text: str) -> int | None:
    digits = text.removeprefix("AS")
    # Ten digits hold ASN_MAX, and spare int() the work on a text of any length.
    return int(digits) if len(digits) <= 10 and digits.isascii() and digits.isdigit() else None


def _organization(values: Iterable[Any]) -> str | None:
    for value in values:
        if isinstance(value, str) and value.strip():
            return value.strip()[:ORGANIZATION_CHARS_MAX].rstrip()
    return None
