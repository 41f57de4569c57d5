"""A record without its times: what a replay, a copy or another capture point may change."""

from typing import Any, Final

TIMES: Final = ("start", "end", "duration_seconds")


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """Of a record as it stands in JSON."""
    without = {name: value for name, value in record.items() if name not in TIMES}
    without["transactions"] = [
        {
            **transaction,
            "recipients": [
                {name: value for name, value in recipient.items() if name != "after_seconds"}
                for recipient in transaction["recipients"]
            ],
        }
        for transaction in record["transactions"]
    ]
    return without
