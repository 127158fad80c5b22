"""`python -m keeper`: sweep, retention, webhooks and users' sweeps until SIGTERM or Ctrl-C.

A service needs one keeper, and any number may run. With a keeper, a lost message or a killed worker
costs a job only seconds.
"""

import signal
import sys
import threading

from jobstore import traces
from jobstore.database import Database, make_engine
from jobstore.destinations import Destinations
from jobstore.logs import configure_logs
from jobstore.objects import ObjectStore
from jobstore.private import keep_private
from jobstore.settings import Settings
from jobstore.vault import Vault
from jobstore.wakeups import make_celery
from keeper.posting import Poster
from keeper.sweep import sweep_for_ever
from keeper.trials import Conductor
from keeper.webhooks import Sender


def main() -> None:
    """Run until a signal; an exception ends the process if one of its threads fails."""
    keep_private()
    try:
        settings = Settings()
        configure_logs(settings.log_format)
        traces.configure("keeper")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(make_engine(settings))
    poster = Poster(Destinations.from_settings(settings))
    vault = Vault.from_settings(settings)
    celery = make_celery(settings)
    beside = [
        threading.Thread(target=Sender(database, poster, vault, stop).run, name="webhooks"),
        threading.Thread(target=Conductor(settings, database, celery, stop).run, name="sweeps"),
    ]
    for thread in beside:
        thread.start()
    try:
        store = ObjectStore.from_settings(settings)
        sweep_for_ever(settings, database, store, celery, stop)
    finally:
        # If one of the three fails, the whole process ends, so that whatever started it notices.
        stop.set()
        for thread in beside:
            thread.join()
        traces.shut_down()


if __name__ == "__main__":
    main()
