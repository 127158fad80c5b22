# Written from atmc_client/aio/client.py by `make generate`: edit that.
"""The calls of the service as methods."""

from atmc_client.sync.administration import Administration
from atmc_client.sync.artifacts import Artifacts
from atmc_client.sync.jobs import Jobs
from atmc_client.sync.sweeps import Sweeps
from atmc_client.sync.webhooks import Webhooks
from atmc_client.types.answers import Entry


class Client(Jobs, Artifacts, Sweeps, Webhooks, Administration):
    """One compression service; `url` defaults to `ATMC_SERVER`, else to this machine's port 8000.

    `key` defaults to `ATMC_API_KEY`; a service that only its own machine reaches may ask for none.
    Instead of a key, `token_command` (`ATMC_TOKEN_COMMAND`) prints a token of the service's
    provider; it is run before the first request, and once more when the token has expired.

    Every method raises `ApiError` when the service refuses, `ServerUnreachable` when there is no
    answer, and `NoToken` when the command prints none. Lost connections are retried with backoff;
    posts carry an Idempotency-Key, so that a repeated one does its work once.
    """

    def architectures(self) -> list[Entry]:
        """The networks that may be sent."""
        return self._all("/architectures")

    def methods(self) -> list[Entry]:
        """The methods, each with the JSON Schema of its spec."""
        return self._all("/methods")

    def attacks(self) -> list[Entry]:
        """The attacks that models are trained and tested with."""
        return self._all("/attacks")
