"""`smtp-horizon read`: capture files -> table, JSON lines or metrics."""

import logging
import sys
from contextlib import ExitStack, closing
from enum import StrEnum
from typing import Any, Final

import click

from monitor.cli.main import DONE, FAILED, abandon_standard_output, collect_garbage_from_here_on, warn
from monitor.cli.observers import Observers, SiteOptions
from monitor.cli.parameters import (
    ENVIRONMENT_PREFIX,
    local_network_option,
    observer_options,
    ports_option,
)
from monitor.cli.probes import open_files_probe
from monitor.cli.progress import LateProgress
from monitor.records import STANDARD_OUTPUT, ReaderGoneError, RecordsWriter
from monitor.sessions.record import SessionRecord
from monitor.sessions.table import SessionTable
from probes.probe import CaptureInterrupted

RECORDS_AT_ONCE: Final = 64
"""Written together at most. Chosen as some 80 kB. A write for each would be a tenth of all that a session
costs once it is over."""


class OutputFormat(StrEnum):
    TABLE = "table"
    JSONL = "jsonl"
    METRICS = "metrics"


@click.command(
    "read",
    context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX},
    epilog=(
        "\b\nExamples:\n"
        "  smtp-horizon read capture.pcap\n"
        "  smtp-horizon read --format jsonl monday.pcap.gz tuesday.pcapng | jq .envelope\n"
        "  smtp-horizon read --local-network 192.0.2.0/24 --format metrics capture.pcap\n"
        "  tcpdump -w - port 25 | smtp-horizon read -"
    ),
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True))
@click.option(
    "--format",
    "output_format",
    type=click.Choice([choice.value for choice in OutputFormat]),
    envvar=f"{ENVIRONMENT_PREFIX}_FORMAT",
    show_envvar=True,
    help="table: for people. jsonl: one session record a line, as sessions end. metrics: what watch would "
    "serve. [default: table on a terminal, jsonl otherwise]",
)
@click.option(
    "--probe",
    type=click.Choice(["pcap", "pyshark"]),
    default="pcap",
    show_default=True,
    show_envvar=True,
    help="What reads the packets. pyshark: tshark, which knows more formats and encapsulations.",
)
@ports_option
@local_network_option("A network that is ours: it decides inbound or outbound. May be repeated.")
@observer_options
def command(
    *,
    files: tuple[str, ...],
    output_format: str | None,
    probe: str,
    **site: Any,
) -> int:
    """Say what capture files hold.

    FILE is a pcap or pcapng file, as it is or compressed (.gz, .zst); - is standard input. Several files are
    one capture, in the order given. Needs no privilege and no settings.
    """
    logging.basicConfig(format="Warning: %(message)s", level=logging.WARNING)
    chosen = OutputFormat(output_format or ("table" if sys.stdout.isatty() else "jsonl"))
    collect_garbage_from_here_on()
    with closing(_Reading(probe, files, SiteOptions(**site), chosen)) as reading:
        return reading.run()


class _Reading:
    def __init__(
        self,
        probe: str,
        files: tuple[str, ...],
        options: SiteOptions,
        output_format: OutputFormat,
    ) -> None:
        """Opens all files. Raises ProbeUnavailable, CaptureFileError, CannotBegin."""
        self._format = output_format
        self._progress = self._progress_bar()
        self._resources = ExitStack()
        with self._resources:
            self._observers = Observers(options)
            self._resources.callback(self._observers.close)
            self._probe = open_files_probe(probe, files, options.ports, self._progress)
            self._resources.callback(self._probe.close)
            self._resources = self._resources.pop_all()
        if self._progress is not None:
            self._progress.total_bytes = self._probe.total_bytes
        self._writer = RecordsWriter(STANDARD_OUTPUT) if output_format is OutputFormat.JSONL else None
        self._table = SessionTable(options.ports, self._observers.site, self._on_record)
        self._is_every_record_written = True
        self._unwritten: list[SessionRecord] = []

    def _progress_bar(self) -> LateProgress | None:
        """Not where records run over the same terminal."""
        is_in_the_way = self._format is OutputFormat.JSONL and sys.stdout.isatty()
        return LateProgress() if sys.stderr.isatty() and not is_in_the_way else None

    def run(self) -> int:
        status = DONE
        try:
            status = self._read_all()
        except ReaderGoneError:
            abandon_standard_output()
            return DONE
        finally:
            if self._progress is not None:
                self._progress.close()
        is_printed = self._print()
        return status if is_printed and self._is_every_record_written else FAILED

    def close(self) -> None:
        self._resources.close()

    def _read_all(self) -> int:
        take = self._table.segment
        interruption = None
        try:
            try:
                for batch in self._probe.batches():
                    for segment in batch:
                        take(segment)
                    self._write()  # a pipe may be slow to bring the next batch
            except CaptureInterrupted as error:
                interruption = error
            self._table.close_all()
        finally:
            self._write()
        if interruption is None:
            return DONE
        warn(str(interruption))
        return FAILED

    def _on_record(self, record: SessionRecord) -> None:
        if self._writer is not None:
            self._unwritten.append(record)
            if len(self._unwritten) == RECORDS_AT_ONCE:
                self._write()
        self._observers.record(record)

    def _write(self) -> None:
        if self._writer is not None and self._unwritten:
            records, self._unwritten = self._unwritten, []
            self._is_every_record_written &= self._writer.write(*records)

    def _print(self) -> bool:
        """Whether it went out whole, or nobody cared."""
        try:
            if self._format is OutputFormat.TABLE:
                self._print_table()
            elif self._format is OutputFormat.METRICS:
                self._print_metrics()
            sys.stdout.flush()
        except BrokenPipeError:
            abandon_standard_output()
        except OSError as error:
            abandon_standard_output()
            warn(f"cannot write to standard output: {error.strerror}")
            return False
        return True

    def _print_table(self) -> None:
        # Imported here because rich takes as long to load as a small file to read.
        from rich.console import Console  # noqa: PLC0415

        from monitor.report.findings import Observed  # noqa: PLC0415
        from monitor.report.table import print_report  # noqa: PLC0415

        tally = self._observers.tally
        observed = Observed(
            counts=tally.snapshot(),
            ports=tally.ports,
            packets=self._probe.counts,
            handshakes_incomplete=self._table.handshakes_incomplete,
            peers=self._observers.peers,
            simulation=self._observers.simulation,
        )
        print_report(Console(), observed)

    def _print_metrics(self) -> None:
        from monitor.metrics.collector import MonitorCollector, exposition  # noqa: PLC0415 - the same for it
        from monitor.metrics.lag import Lag  # noqa: PLC0415

        collector = MonitorCollector(self._observers, self._probe, self._table, Lag())
        sys.stdout.buffer.write(exposition(collector))
