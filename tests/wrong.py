"""Is anything in a degraded record definite and wrong? Held against the record of the whole capture.

Unknown and null are never wrong; lists may lack items, but what they have must be in the true ones, in order.
"""

from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]


def wrong_facts(seen: Json, true: Json) -> list[str]:
    """A line for each."""
    lines = []
    for name, unknown in (("channel", "unknown"), ("envelope", "unknown")):
        if seen[name] not in (unknown, true[name]):
            lines.append(f"{name}: {seen[name]}, not {true[name]}")
    for path, unknown_values in (
        (("starttls", "outcome"), ("unknown",)),
        (("starttls", "offered"), (None,)),
        (("banner",), (None,)),
    ):
        a, b = _get(seen, path), _get(true, path)
        if a not in unknown_values and a != b:
            lines.append(f"{'.'.join(path)}: {a}, not {b}")
    for name, value in (seen["tls"] or {}).items():
        if value is not None and value != (true["tls"] or {}).get(name):
            lines.append(f"tls.{name}: {value}, not {(true['tls'] or {}).get(name)}")
    lines += wrong_lists(seen, true)
    if not _is_subsequence(seen["helo"], true["helo"], _agrees):
        lines.append(f"helo: {seen['helo']}, not {true['helo']}")
    if not _is_subsequence(seen["starttls"]["codes"], true["starttls"]["codes"], _equal_or_none):
        lines.append(f"starttls.codes: {seen['starttls']['codes']}, not {true['starttls']['codes']}")
    lines += [
        f"{name}: {found}, not {true['greylisters'][name]}"
        for name, found in seen["greylisters"].items()
        if found["reach"] != "unknown" and found != true["greylisters"][name]
    ]
    for side, offset in (seen["opaque_from"] or {}).items():
        if not _equal_or_none(offset, (true["opaque_from"] or {}).get(side)):
            lines.append(f"opaque_from.{side}: {offset}, not {true['opaque_from']}")
    extra = set(seen["anomalies"]) - set(true["anomalies"])
    if extra:
        lines.append(f"anomalies: {sorted(extra)} too many")
    return lines


def wrong_lists(seen: Json, true: Json) -> list[str]:
    """The same of what is listed alone: AUTHs and transactions."""
    lines = []
    if not _is_subsequence(seen["auth"], true["auth"], _agrees):
        lines.append(f"auth: {seen['auth']}, not {true['auth']}")
    if not _is_subsequence(seen["transactions"], true["transactions"], _same_transaction):
        lines.append(f"transactions: {seen['transactions']}, not {true['transactions']}")
    return lines


def _get(record: Json, path: Sequence[str]) -> Any:
    value: Any = record
    for name in path:
        value = value[name]
    return value


def _is_subsequence(seen: Sequence[Any], true: Sequence[Any], agrees: Callable[[Any, Any], bool]) -> bool:
    rest = iter(true)
    return all(any(agrees(item, candidate) for candidate in rest) for item in seen)


def _equal_or_none(seen: Any, true: Any) -> bool:
    return seen is None or seen == true


def _agrees(seen: Json, true: Json) -> bool:
    # The time of a reply is that of the packet after which it was known.
    names = (name for name in seen if name not in ("params", "after_seconds"))
    if seen.get("mechanism") == "":  # the line was cut
        seen = {**seen, "mechanism": None}
    return all(_equal_or_none(seen[name], true[name]) for name in names) and (
        not seen.get("params") or seen["params"] == true["params"]
    )


def _same_transaction(seen: Json, true: Json) -> bool:
    # Where the reply to MAIL is not known, it may have been refused, and all behind it belongs to another.
    recipients, data = ([], None) if seen["mail_code"] is None else (seen["recipients"], seen["data"])
    return (
        _equal_or_none(seen["mail_from"], true["mail_from"])
        and _equal_or_none(seen["mail_code"], true["mail_code"])
        and seen["outcome"] in ("unknown", true["outcome"])
        and _is_subsequence(recipients, true["recipients"], _agrees)
        and (data is None or (true["data"] is not None and _agrees(data, true["data"])))
    )
