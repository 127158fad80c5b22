"""The process that does the work: `python -m worker.child FOLDER`.

It uses one folder (docs/interfaces/job-folder.md) and nothing else: no database, no store, no
secrets. So it can be run by hand on any machine: put `job.json` and the inputs into a folder, and
run the command. Exit status 0 means that `outcome.json` was written. Any other status is a crash;
the reason is on standard error and, for known kinds of crashes, in `crash.json`.

The supervisor uses `--supervised`. The child then enters the sandbox, loads the method, and waits
for a line with the folder on standard input. When standard input closes, the supervisor has ended,
and the child ends itself and all processes that it started. Without the option, standard input is
not used.

This module imports neither torch nor numpy, which start threads: the sandbox is entered before.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import sandbox
from worker.folder import RunFolder


def main() -> None:
    """Run the job in the folder and write its outcome."""
    parser = argparse.ArgumentParser(prog="python -m worker.child", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--supervised", metavar="RESTRICTIONS")
    arguments = parser.parse_args()
    if arguments.supervised is None and arguments.folder is None:
        parser.error("a folder is needed")
    if arguments.supervised is not None:
        restrictions = sandbox.Restrictions.from_argument(arguments.supervised)
        held = str(sandbox.enter(restrictions))
    # Imported here, inside of the sandbox: it loads the method.
    from worker import work

    supervised = arguments.supervised is not None
    folder = _wait_for_folder(held) if supervised else RunFolder(arguments.folder)
    document = json.loads(folder.job.read_text())
    if document["processes"] > 1 and not work.is_launched():
        sys.exit(_launch(folder, document["processes"]))
    work.run_in(folder, document)


def _launch(folder: RunFolder, processes: int) -> int:
    """Run the job in several processes with a GPU each; they communicate over the loopback."""
    command = [sys.executable, "-m", "worker.together", "--standalone"]
    command += ["--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    command += ["-m", "worker.child", str(folder.path)]
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, env=os.environ | loopback, stdin=subprocess.DEVNULL).returncode


def _wait_for_folder(said: str) -> RunFolder:
    """Wait for the supervisor to name a folder; from then on, output goes to the folder's log."""
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)  # The supervisor has ended.
    folder = RunFolder(Path(os.fsdecode(line.rstrip(b"\n"))))
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, descriptor)
    os.close(log)
    print(said, flush=True)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return folder


def _end_with_supervisor() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    # This process leads the process group of all that it started, which must end with it.
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
