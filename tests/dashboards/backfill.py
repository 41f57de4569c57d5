"""Samples of a past that never was: what Prometheus would hold, had it scraped a watch over these days.

    .venv/bin/python -m tests.dashboards.backfill --days 1 --end 1795435200 day.om
    .venv/bin/python -m tests.dashboards.backfill --days 30 --step 900 --end 1795435200 month.om

writes OpenMetrics text, as `promtool tsdb create-blocks-from openmetrics` takes it. But Prometheus does not
evaluate rules over such samples, and promtool reads the whole file once for each two hours in it. So better
let this serve them:

    .venv/bin/python -m tests.dashboards.backfill --days 1 --end 1795435200 --serve 9099
    .venv/bin/python -m tests.dashboards.backfill --days 1 --end 1795435200 --serve 9099 -- COMMAND {url}

serves a Prometheus on that port until Ctrl-C, or as long as the command runs, with the series that the rules
of dashboards/generated/rules record, and ALERTS of the alerts there (`--rules FOLDER` for others,
`--no-rules` for none). Ask it for times up to `--end`: there is nothing after it.

The last day has ten minutes of a full disk (until 17 hours before the end), an hour of lost packets (until 14
hours before it), 20 minutes in which the TLS tap loses events (12 hours), 45 minutes of STARTTLS stripping (9
hours), half an hour in which the tap is attached to nothing (6) and ten minutes of an interface that is down
(4).
"""

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client.core import Metric

from monitor.cli.observers import Observers, SiteOptions
from monitor.cli.parameters import Countries
from monitor.metrics.collector import MonitorCollector
from monitor.metrics.labels import Confinement
from monitor.metrics.lag import Lag
from tests.dashboards.mail_days import COUNTRIES, DAY_SECONDS, MailDays
from tests.dashboards.openmetrics import Series, write
from tests.dashboards.past import GENERATED_RULES, Past
from tests.mmdb import write_mmdb
from tests.segments import PORTS

INSTANCE: Final = "mx1.example:9825"
JOB: Final = "smtp-horizon"
WARM_UP_SECONDS: Final = 3 * DAY_SECONDS
"""The watch ran for so long when Prometheus began to ask: longer than a peer has to come again."""
WARM_UP_STEP_SECONDS: Final = 900
_STEPS_SECONDS: Final = ((2, 60), (7, 300), (366, 900))  # up to so many days, one sample in so many seconds

_AT_THE_SCRAPE: Final = {"instance": INSTANCE, "job": JOB}


def default_step(days: float) -> int:
    return next(step for up_to, step in _STEPS_SECONDS if days <= up_to)


def backfill(days: float, end: int, *, step: int | None = None, seed: int = 1) -> Series:
    """All series, with a sample each `step` seconds up to `end` (seconds since the epoch)."""
    step = step or default_step(days)
    begin = end - int(days * DAY_SECONDS)
    series = Series()
    with TemporaryDirectory() as folder:
        database = write_mmdb(
            Path(folder) / "countries.mmdb",
            {network: {"country": {"iso_code": country}} for network, country in COUNTRIES.items()},
        )
        observers = Observers(_options(database), is_tapped=True)
        try:
            mail = MailDays(end, observers.site.locate, seed=seed)
            lag = Lag()
            confinement = dict.fromkeys(Confinement, True)
            collector = MonitorCollector(observers, mail.probe, mail.table, lag, confinement, tap=mail.tap)
            for start in range(begin - WARM_UP_SECONDS, begin, WARM_UP_STEP_SECONDS):
                _pass_time(observers, mail, start, start + WARM_UP_STEP_SECONDS)
            for at in range(begin, end + 1, step):
                if at > begin:
                    _pass_time(observers, mail, at - step, at)
                lag.seconds = mail.lag_seconds
                for metric in [*collector.collect(), *_of_process(at, begin - WARM_UP_SECONDS)]:
                    series.add(metric, at, _AT_THE_SCRAPE)
                for metric in _of_scrape():
                    series.add(metric, at, _AT_THE_SCRAPE)
        finally:
            observers.close()
    return series


def _options(database: str) -> SiteOptions:
    return SiteOptions(
        ports=PORTS,
        local_network=(),
        tls_ends="server",
        geoip=(database,),
        countries=Countries(50),
        simulate=("greylite", "postgrey"),
        simulate_state=None,
        simulate_delay=None,
    )


def _pass_time(observers: Observers, mail: MailDays, begin: int, stop: int) -> None:
    for record, is_written in mail.sessions(begin, stop):
        observers.record(record, is_written)
    observers.tick(stop * 10**9)


def _of_process(at: int, started: int) -> Iterator[Metric]:
    """What ProcessCollector would say of a process about as large and as busy as a watch."""
    yield _one("process_cpu_seconds", "counter", (at - started) * 0.004)
    yield _one("process_resident_memory_bytes", "gauge", 74e6 + 2e6 * ((at // 3600) % 5))
    yield _one("process_virtual_memory_bytes", "gauge", 310e6)
    yield _one("process_start_time_seconds", "gauge", started)
    yield _one("process_open_fds", "gauge", 19)
    yield _one("process_max_fds", "gauge", 1024)


def _of_scrape() -> Iterator[Metric]:
    """What Prometheus itself adds (https://prometheus.io/docs/concepts/jobs_instances/)."""
    yield _one("up", "gauge", 1)
    yield _one("scrape_duration_seconds", "gauge", 0.012)
    yield _one("scrape_samples_scraped", "gauge", 700)
    yield _one("scrape_samples_post_metric_relabeling", "gauge", 700)
    yield _one("scrape_series_added", "gauge", 0)


def _one(name: str, kind: str, value: float) -> Metric:
    metric = Metric(name, "", kind)
    metric.add_sample(f"{name}_total" if kind == "counter" else name, {}, value)
    return metric


def main(arguments: Iterable[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="backfill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=1)
    parser.add_argument("--end", type=int, required=True, help="seconds since the epoch")
    parser.add_argument("--step", type=int, help="seconds from one sample to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", type=int, metavar="PORT", help="a loopback port; 0 takes a free one")
    parser.add_argument("--rules", type=Path, default=GENERATED_RULES, metavar="FOLDER")
    parser.add_argument("--no-rules", action="store_true")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="FILE.om | -- COMMAND ...")
    options = parser.parse_args([*arguments])
    rest = options.rest[1:] if options.rest[:1] == ["--"] else options.rest
    if options.serve is None and len(rest) != 1:
        parser.error("name the file to write, or a port with --serve")
    step = options.step or default_step(options.days)
    series = backfill(options.days, options.end, step=step, seed=options.seed)
    if options.serve is None:
        with Path(rest[0]).open("w", encoding="utf-8") as output:
            write(series, output)
        return 0
    rules = () if options.no_rules else sorted(options.rules.glob("*.yml"))
    with TemporaryDirectory() as folder, Past(Path(folder), port=options.serve) as past:
        past.take(series)
        past.evaluate(rules, options.end - int(options.days * DAY_SECONDS), options.end, step)
        print(past.url, flush=True)
        if rest:
            command = [word.replace("{url}", past.url) for word in rest]
            return subprocess.run(command, check=False).returncode
        with contextlib.suppress(KeyboardInterrupt):
            past.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
