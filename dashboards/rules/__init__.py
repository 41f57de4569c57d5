"""Recording rules and alerts for Prometheus. They keep servers apart by `instance`, but for the rules on
greylisters, which take all together. A session counts when it ends.

    rule           what a rule is
    layout         expressions over several lines, for those who read the rule files
    text           rules as YAML
    shares         recording rules: what is out of sight, and how STARTTLS fares
    greylisters    recording rules: what each greylister can still decide, and what would change that
    watcher        alerts: the watcher itself is not well
    traffic        alerts: the mail is not well
    tap            alerts: the tap of the TLS library sees too little, or sees that we are wrong
    tests/         what Prometheus must make of them, for promtool; written by hand
"""

from dashboards.rules import greylisters, shares, tap, traffic, watcher
from dashboards.rules.text import text


def files() -> dict[str, str]:
    """File name to YAML. Alerts need what the recording rules record: load both."""
    return {
        "recording.yml": text([*shares.GROUPS, greylisters.GROUP]),
        "alerts.yml": text([watcher.GROUP, traffic.GROUP, tap.GROUP]),
    }
