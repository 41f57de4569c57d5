"""Accept and Accept-Encoding, as clients send them and as nobody should."""

import pytest

from monitor.metrics.negotiation import FORMATS, choose_format, gzip_is_preferred

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PLAIN_1 = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
PLAIN_1_UTF8 = "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
OPENMETRICS_UTF8 = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"


def test_what_is_offered_is_this() -> None:
    assert [one.content_type for one in FORMATS] == [
        PLAIN,
        PLAIN_1,
        PLAIN_1_UTF8,
        OPENMETRICS,
        OPENMETRICS_UTF8,
    ]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/*", PLAIN),
        ("text/plain", PLAIN),
        ("text/html, */*;q=0.1", PLAIN),
        ("application/json", PLAIN),
        ("application/*", OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8", OPENMETRICS_UTF8),
        # Prometheus 2, and 3.
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            OPENMETRICS,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
            "text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            OPENMETRICS_UTF8,
        ),
        # Protocol buffers are not offered.
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2",
            PLAIN_1_UTF8,
        ),
        # Weights decide before the order, the order where they are the same.
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", PLAIN),
        ("application/openmetrics-text;q=0.9, text/plain;q=0.1", OPENMETRICS),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.5", PLAIN),
        ("application/openmetrics-text, text/plain", OPENMETRICS),
        # Of several ranges that match a format, the most specific decides.
        ("*/*, text/plain;q=0", OPENMETRICS),
        ("text/plain;q=0, application/openmetrics-text;q=0.001", OPENMETRICS),
        ("text/plain;q=0.2, text/plain;version=1.0.0;q=0.8", PLAIN_1),
        ("application/openmetrics-text;q=0", PLAIN),
        ("text/plain;q=0", PLAIN),
        # Versions that are not there, or none; and what is not well-formed.
        ("application/openmetrics-text;version=0.0.1", PLAIN),
        ("application/openmetrics-text;version=2.0.0", PLAIN),
        ("application/openmetrics-text;version=a", PLAIN),
        ("application/openmetrics-text;version", PLAIN),
        ("application/openmetrics-text;q=2", PLAIN),
        ("application/openmetrics-text;q=a", PLAIN),
        ("application/openmetrics-text;q=-1", PLAIN),
        ("application/openmetrics-text;q=nan", PLAIN),
        ("application/openmetrics-text;q=1;", OPENMETRICS),
        ("*/plain", PLAIN),
        (";,;,/,=/=;=,\x00\xff", PLAIN),
    ],
)
def test_the_format_is_what_the_client_likes_best_of_what_is_there(accept: str, chosen: str) -> None:
    assert choose_format(accept).content_type == chosen


@pytest.mark.parametrize(
    ("accept_encoding", "is_gzip"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip; q=0.001", True),
        ("gzip ; Q=1.0, deflate", True),
        ("deflate, br", False),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("*, gzip;q=0", False),
        ("identity", False),
        ("identity;q=0", False),
        ("identity;q=0, gzip", True),
        ("identity;q=0, *", True),
        ("identity, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("gzip;q=a", False),
        ("gzip;q=2", False),
        ("gzip;level=9", False),
        (",;q=1,=", False),
    ],
)
def test_gzip_comes_where_it_is_wanted_as_much_as_anything_else(accept_encoding: str, is_gzip: bool) -> None:
    assert gzip_is_preferred(accept_encoding) is is_gzip
