"""The `atmc` command line.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 the job
or sweep did not succeed or a file is not what was signed, 2 wrong usage or refused by the service,
3 no answer from the service, 4 a threshold is missed.
"""

import sys
from pathlib import Path

import click
import httpx

from atmc_client.attestation import NotVerified
from atmc_client.cli.audit import audit
from atmc_client.cli.catalogue import architectures, attacks, methods
from atmc_client.cli.change import change
from atmc_client.cli.completion import completion
from atmc_client.cli.convert import convert
from atmc_client.cli.download import download
from atmc_client.cli.evaluate import evaluate
from atmc_client.cli.gate import gate
from atmc_client.cli.inspect import inspect
from atmc_client.cli.jobs import cancel, delete, list_jobs, retry, show
from atmc_client.cli.keys import keys
from atmc_client.cli.profile import apply, complete, enter
from atmc_client.cli.register import register
from atmc_client.cli.report import compare, report
from atmc_client.cli.serve import serve
from atmc_client.cli.submit import submit
from atmc_client.cli.sweep import sweep
from atmc_client.cli.sweeps import sweeps
from atmc_client.cli.tenants import tenants
from atmc_client.cli.uploads import connections, datasets, models, upload
from atmc_client.cli.verify import verify
from atmc_client.cli.watch import logs, watch
from atmc_client.client import DEFAULT_SERVER
from atmc_client.errors import ApiError, DigestMismatch, NoToken, ServerUnreachable

FAILED, REFUSED, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130

# These ask no service for anything: they need no key, and no other certificates.
_ALONE = ("serve", "inspect", "convert", "completion")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="FILE",
    envvar="ATMC_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    callback=apply,
    show_envvar=True,
    help="Where profiles stand.  [default: ~/.config/atmc.toml]",
)
@click.option(
    "--profile",
    metavar="NAME",
    envvar="ATMC_PROFILE",
    is_eager=True,
    callback=apply,
    shell_complete=complete,
    show_envvar=True,
    help="Which of them.  [default: the one called default, if there is one]",
)
@click.option(
    "--server",
    metavar="URL",
    envvar="ATMC_SERVER",
    default=DEFAULT_SERVER,
    show_default=True,
    show_envvar=True,
    help="Where the service is.",
)
@click.option(
    "--token-command",
    metavar="COMMAND",
    envvar="ATMC_TOKEN_COMMAND",
    show_envvar=True,
    help="Prints a token of the service's provider; run again when that has expired.",
)
@click.option(
    "--ca",
    metavar="FILE",
    envvar="ATMC_CA",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    show_envvar=True,
    help="The authority that signed the service's certificate, instead of this machine's.",
)
@click.pass_context
def cli(context: click.Context, /, server: str, **_: object) -> None:
    """Compress image classifiers without giving up their robustness.

    A service that asks for a key gets the one in ATMC_API_KEY; a token of its provider may stand
    there instead. An option goes before the environment, and that before a profile.
    """
    context.obj = server
    if context.invoked_subcommand not in _ALONE:
        enter(context)


for _command in (
    serve,
    submit,
    evaluate,
    upload,
    models,
    datasets,
    connections,
    watch,
    logs,
    show,
    list_jobs,
    cancel,
    change,
    retry,
    delete,
    download,
    report,
    compare,
    gate,
    register,
    convert,
    sweep,
    sweeps,
    verify,
    inspect,
    architectures,
    methods,
    attacks,
    keys,
    audit,
    tenants,
    completion,
):
    cli.add_command(_command)


def main() -> None:
    """Run one command and exit with its code."""
    try:
        result = cli(prog_name="atmc", standalone_mode=False)
    except click.exceptions.Abort:
        _exit(INTERRUPTED, "interrupted")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ServerUnreachable as error:
        _exit(UNREACHABLE, str(error))
    except NoToken as error:
        _exit(REFUSED, str(error))
    except ApiError as error:
        if error.code == "token_expired":
            click.echo("--token-command or ATMC_TOKEN_COMMAND gets new ones", err=True)
        _exit(UNREACHABLE if error.status >= 500 else REFUSED, str(error))
    except (DigestMismatch, NotVerified) as error:
        _exit(FAILED, str(error))
    except (httpx.InvalidURL, OSError) as error:
        _exit(REFUSED, str(error))
    # A command returns its exit code; click's own endings (--help) return theirs.
    sys.exit(result if isinstance(result, int) else 0)


def _exit(code: int, message: str) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
