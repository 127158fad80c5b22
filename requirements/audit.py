"""`python -m requirements.audit`, or `make audit`: which pins have known vulnerabilities.

Asks the index's advisories by pip-audit. What it finds, and what could not be asked for, is a
warning: a network that is away or an advisory of last night breaks nobody's build. With `--fail`
both are the exit status 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from requirements.__main__ import CONSTRAINTS

_TIMEOUT_S = 300


def main() -> int:
    """Print what is known; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m requirements.audit", description=__doc__)
    parser.add_argument("--fail", action="store_true", help="exit with 1 for any warning")
    arguments = parser.parse_args()
    try:
        found = ask()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"warning: nothing was audited, pip-audit failed: {error}")
        return int(arguments.fail)
    lines = judge(found)
    print("\n".join(lines))
    return int(arguments.fail and any(line.startswith("warning") for line in lines))


def ask() -> list[dict[str, Any]]:
    """Return pip-audit's findings, an entry a pin; raises OSError, ValueError, SubprocessError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "audit.json")
        # Exit status 1 is a finding; without an answer there is no file.
        command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps"]
        quick = ["--disable-pip", "--progress-spinner", "off", "--timeout", "15"]
        done = subprocess.run(
            [*command, *quick, "--format", "json", "--output", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if not path.exists():
            raise ValueError((done.stderr.strip().splitlines() or ["it says nothing"])[-1])
        entries: list[dict[str, Any]] = json.loads(path.read_text())["dependencies"]
        return entries


def judge(entries: list[dict[str, Any]]) -> list[str]:
    """Return the findings as lines: what is known, what could not be asked for, and a sum.

    pip-audit itself calls a pin that the index would not tell of no vulnerability.
    """
    lines = [
        f"warning: {entry['name']} {entry['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no release yet'}"
        for entry in entries
        for found in entry.get("vulns", ())
    ]
    unasked = [entry["name"] for entry in entries if "skip_reason" in entry]
    if unasked:
        some = ", ".join(unasked[:5]) + (", ..." if len(unasked) > 5 else "")
        lines.append(f"warning: {len(unasked)} of {len(entries)} pins were NOT audited: {some}")
    if not entries:
        lines.append("warning: no pin was audited")
    lines.append(f"{len(entries) - len(unasked)} of {len(entries)} pins audited")
    return lines


if __name__ == "__main__":
    sys.exit(main())
