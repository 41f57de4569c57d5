"""Runs a command and says what it took: `launcher.py OUTPUT COMMAND...` prints one line of JSON.

wait4(2) counts with a process those that it started and waited for: the processor time of all of them, but
the memory of the largest alone. Of one whose parent did not wait for it nothing is known; all readers wait.

A process of its own, and with few modules, because Linux counts the memory of whoever starts a program
towards that program's peak (getrusage(2), ru_maxrss; kept over execve).
"""

import json
import os
import sys


def main() -> None:
    output, *command = sys.argv[1:]
    process = os.fork()
    if process == 0:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(nothing, 2)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(process, 0)
    answer = {
        "status": os.waitstatus_to_exitcode(status),
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
