"""The hash is the one that others compute."""

from ipaddress import ip_address

import pytest

from monitor.sessions.community_id import community_id

# The specification's own examples for TCP with seed 0: https://github.com/corelight/community-id-spec
PUBLISHED = [
    ("128.232.110.120", 34855, "66.35.250.204", 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    ("66.35.250.204", 80, "128.232.110.120", 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
]


@pytest.mark.parametrize(("source", "source_port", "destination", "destination_port", "published"), PUBLISHED)
def test_it_is_the_published_one_from_either_end(
    source: str, source_port: int, destination: str, destination_port: int, published: str
) -> None:
    computed = community_id(
        ip_address(source).packed, source_port, ip_address(destination).packed, destination_port
    )
    assert computed == published


def test_both_ends_of_a_connection_from_a_host_to_itself_have_one_id() -> None:
    host = ip_address("::1").packed
    assert community_id(host, 25, host, 40_000) == community_id(host, 40_000, host, 25)
