"""The command `smtp-horizon`: its group, its exit statuses, and how an error becomes one line.

0: done. 1: ran, but something failed on the way, and standard error says what. 2: could not begin: wrong
usage or settings, a file that is no capture, no privilege.
"""

import gc
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from probes.probe import ProbeError

DONE: Final = 0
FAILED: Final = 1
NOT_BEGUN: Final = 2

GARBAGE_SOUGHT_EVERY: Final = 20_000
"""After so many more things were made than let go. Chosen because those of a busy second are fewer, and take
a few MB."""

DEBUG_VARIABLE: Final = "SMTP_HORIZON_DEBUG"

_COMMANDS: Final = {
    "read": "Say what capture files hold.",
    "watch": "Watch live, serve metrics, write session records.",
    "doctor": "Say what this machine can do, and how to mend the rest.",
}


class CannotBegin(click.ClickException):
    """One line: what, where, what to do."""

    exit_code = NOT_BEGUN


class _Commands(click.Group):
    """Loads a command's module only when that command is called: imports are most of a short run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"monitor.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "\b\nExamples:\n"
        "  smtp-horizon read capture.pcap\n"
        "  tcpdump -w - port 25 | smtp-horizon read -\n"
        "  smtp-horizon watch --interface eth0 --records /var/log/smtp-horizon.jsonl\n"
        "  smtp-horizon doctor"
    ),
)
@click.version_option(package_name="smtp-horizon", prog_name="smtp-horizon", message="%(prog)s %(version)s")
def commands() -> None:
    """How much of your mail is beyond the reach of a stream watcher?

    Reads SMTP from capture files or live from the network, and says of each session whether somebody who
    reads the stream could see its envelope: in clear, after STARTTLS, or inside TLS from the first byte.
    """


def main() -> None:
    """The entry point of the distribution."""
    gc.disable()  # imports make much, and no garbage
    status = run(sys.argv[1:])
    gc.freeze()  # or Python would search all there is for garbage once more before it ends
    sys.exit(status)


def collect_garbage_from_here_on() -> None:
    """For a command that has begun, and goes on for long. What was imported is here to stay: it need not be
    searched again and again. And what passes is no garbage: a session that is over takes itself away, so that
    little is found, and it need not be looked for after every few hundred packets."""
    gc.freeze()
    gc.set_threshold(GARBAGE_SOUGHT_EVERY)
    gc.enable()


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; every error is one line on standard error."""
    try:
        status = commands.main(list(arguments), prog_name="smtp-horizon", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return NOT_BEGUN
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "smtp-horizon"
        return _say(f"{error.format_message().rstrip('.')} (try '{command} --help')", NOT_BEGUN)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except ProbeError as error:
        return _say(str(error), NOT_BEGUN)
    except BrokenPipeError:
        abandon_standard_output()
        return DONE
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", FAILED)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _say(f"{type(error).__name__}: {error}; set {DEBUG_VARIABLE}=1 to see where", FAILED)
    return status if isinstance(status, int) else DONE


def abandon_standard_output() -> None:
    """Its reader has gone, as `| head` does. Python would complain at exit about what it could not flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(message: str) -> None:
    """One line on standard error."""
    click.echo(f"Warning: {one_line(message)}", err=True)


def complain(message: str) -> None:
    """One line on standard error, of what keeps us from beginning or going on."""
    click.echo(f"Error: {one_line(message)}", err=True)


def _say(message: str, status: int) -> int:
    complain(message)
    return status


def one_line(message: str) -> str:
    """File names and the like may hold anything; a terminal shall see none of it."""
    line = re.sub(r"\s*\n\s*", " ", message.strip())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
