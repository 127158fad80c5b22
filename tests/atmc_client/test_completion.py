"""The Tab key, in the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.atmc_client.conftest import in_this_process

BIN = Path(sys.executable).parent

# What each shell does as somebody has typed `atmc wat`, resp. `atmc submit --dens`, and presses it.
PRESSED = {
    "bash": """
        source <(atmc completion bash)
        COMP_WORDS=(atmc {words}) COMP_CWORD={count}
        $(complete -p atmc | grep -oE -- '-F [^ ]+' | cut -c4-) atmc
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """,
    "zsh": """
        compdef() {{ registered=$1 }}
        source <(atmc completion zsh)
        compadd() {{ :; }}
        _describe() {{ print -l -- ${{(P)3}} }}
        words=(atmc {words}) CURRENT=$(({count} + 1))
        $registered
    """,
    "fish": """
        atmc completion fish | source
        complete --do-complete 'atmc {words}'
    """,
}


@pytest.mark.parametrize("shell", PRESSED)
@pytest.mark.parametrize(
    ("words", "found"), [("wat", "watch"), ("submit --dens", "--density"), ("sweeps ca", "cancel")]
)
def test_a_shell_completes_commands_and_options(shell, words, found):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    script = PRESSED[shell].format(words=words, count=len(words.split()))
    done = subprocess.run(
        [shell, "-c", script],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found in done.stdout.replace(":", "\t").split(), done.stdout + done.stderr


@pytest.mark.parametrize("shell", PRESSED)
def test_it_is_printed_for_each_shell_and_no_other(shell):
    assert "_ATMC_COMPLETE" in in_this_process("completion", shell).stdout
    other = in_this_process("completion", "tcsh")
    assert (other.returncode, "'bash', 'zsh', 'fish'" in other.stderr) == (2, True)
