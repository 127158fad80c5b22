"""Hands out what stages of other jobs made, and keeps what this one's make.

The child asks by files in its folder (docs/interfaces/job-folder.md). The desk holds the folder
open and looks into it without following links: whatever the child puts there, nothing outside is
read or written.
"""

import json
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from jobstore import products
from jobstore.errors import QuotaExceeded, TenantGone
from jobstore.objects import Stored, blob_key, digest_of
from jobstore.products import Made, MadeNow
from jobstore.quotas import check_storage
from jobstore.settings import Settings
from jobstore.tables import Tenant
from jobstore.terms import Terms
from worker.access import Access
from worker.cache import InputCache, WrongBytes
from worker.events import ProtocolError

log = logging.getLogger(__name__)

ASK, ANSWER, TAKEN, MADE, ABOUT = ".ask", ".answer", ".taken", ".made", ".about"

_KEY = re.compile(r"[0-9a-f]{64}")
_STAGE = re.compile(r"[a-z0-9_]{1,40}")
# No method has so many stages.
_MOST_KEYS = 64
_LONGEST_DOCUMENT = 4096
_ASK_AGAIN_S = 1.0
_PART = ".part"


class ProductDesk:
    """Serves the child of one attempt."""

    def __init__(self, access: Access, folder: Path, cache: InputCache, settings: Settings) -> None:
        """`folder` is the run folder's part for products, which is still the supervisor's."""
        self._access, self._cache, self._settings = access, cache, settings
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        # By key: the number of the ask that was answered for good, and what was given.
        self._answered: dict[str, int] = {}
        self._given: dict[str, str] = {}
        self._told: set[str] = set()
        self._next_look = 0.0

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._folder)

    def serve(self) -> None:
        """Keep what was made, and answer what was asked.

        Raises `ProtocolError`, `LeaseLost` and `GaveUp`.
        """
        names = os.listdir(self._folder)
        self.keep(names)
        for key in _keys(names, ASK):
            number, stage, refused = self._read_ask(key)
            if self._answered.get(key, -1) < number:
                self._serve(key, number, stage, refused=refused)

    def keep(self, names: list[str] | None = None) -> None:
        """Keep what the child has made. Raises as `serve`."""
        for key in _keys(os.listdir(self._folder) if names is None else names, MADE):
            about = self._read(key + ABOUT)
            match about:
                case {"stage": str(stage), "seconds": int() | float() as seconds} if (
                    _STAGE.fullmatch(stage) and 0 <= seconds <= 1e10
                ):
                    self._publish(key, stage, float(seconds))
                case _:
                    raise ProtocolError(f"not about a product: {about!r}")

    def _serve(self, key: str, number: int, stage: str, *, refused: bool) -> None:
        if key in self._told and time.monotonic() < self._next_look:
            return
        if len(self._answered) >= _MOST_KEYS:
            raise ProtocolError(f"a child asked for more than {_MOST_KEYS} products")
        access = self._access
        if refused and key in self._given:
            self._refuse(key, self._given.pop(key))
        found = access.write(
            "asking for a product", lambda s: products.ask(s, access.attempt, key, stage)
        )
        if isinstance(found, MadeNow):
            self._next_look = time.monotonic() + _ASK_AGAIN_S
            if key not in self._told:
                self._told.add(key)
                self._answer(key, {"n": number, "answer": "wait", "job_id": found.job_id})
            return
        if isinstance(found, Made):
            if not self._give(key, found):
                self._refuse(key, found.sha256)
                return  # The next look finds it absent, or that another one makes it.
            self._given[key] = found.sha256
            told = {"answer": "take", "job_id": found.job_id, "seconds": found.seconds}
        else:
            told = {"answer": "make"}
        self._answered[key] = number
        self._answer(key, {"n": number} | told)

    def _refuse(self, key: str, sha256: str) -> None:
        attempt = self._access.attempt
        log.warning("a product cannot be used", extra=attempt.ids | {"product": key})
        self._access.write("refusing a product", lambda s: products.refuse(s, attempt, key, sha256))

    def _give(self, key: str, made: Made) -> bool:
        """Put a product into the child's folder; tell whether its bytes are there and right."""
        access = self._access
        source = blob_key(made.sha256, access.attempt.tenant)
        with self._aside() as aside:
            try:
                self._cache.fetch(
                    access.attempt.tenant,
                    made.sha256,
                    aside,
                    lambda to: access.fetch(source, to),
                    until=access.guard.stopped.is_set,
                )
            except (FileNotFoundError, WrongBytes):
                return False
            with aside.open("rb") as reader, self._create(key + TAKEN) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
        return True

    def _publish(self, key: str, stage: str, seconds: float) -> None:
        access = self._access
        attempt = access.attempt
        with self._aside() as aside:
            # From here on the child cannot change what is hashed and stored.
            with self._open(key + MADE) as reader, aside.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
            if self._may_store(aside):
                stored = access.put_blob(aside)
                access.write(
                    "publishing a product",
                    lambda s: products.publish(s, attempt, key, stage, stored, seconds),
                )
            else:
                access.write("renouncing a product", lambda s: products.renounce(s, attempt, key))
        for kind in (MADE, ABOUT):
            with suppress(FileNotFoundError):
                os.unlink(key + kind, dir_fd=self._folder)

    def _may_store(self, path: Path) -> bool:
        """Tell whether the tenant may store so much more: a product is no reason to fail a job."""
        new = Stored("", digest_of(path), path.stat().st_size)
        tenant = self._access.attempt.tenant

        def check() -> bool:
            try:
                with self._access.database.of(tenant).write() as session:
                    terms = Terms.of(self._settings, session.get_one(Tenant, tenant))
                    check_storage(session, terms.max_stored_bytes, new)
            except (QuotaExceeded, TenantGone) as error:
                log.info("a product is not kept: %s", error, extra=self._access.attempt.ids)
                return False
            return True

        return self._access.patiently("asking for room", check)

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A path in a folder that the child cannot reach."""
        with TemporaryDirectory(dir=self._settings.home, prefix="product-") as folder:
            yield Path(folder, "product")

    def _read_ask(self, key: str) -> tuple[int, str, bool]:
        document = self._read(key + ASK)
        match document:
            case {"n": int(number), "stage": str(stage), "refused": bool(refused)} if (
                _STAGE.fullmatch(stage)
            ):
                return number, stage, refused
        raise ProtocolError(f"not an ask for a product: {document!r}")

    def _read(self, name: str) -> Any:
        with self._open(name) as file:
            text = file.read(_LONGEST_DOCUMENT)
        try:
            return json.loads(text)
        except ValueError as error:
            raise ProtocolError(f"products/{name} is no document: {text[:200]!r}") from error

    @contextmanager
    def _open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the child's: a plain one of its own folder, or not at all."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(name, flags, dir_fd=self._folder)
        except OSError as error:
            raise ProtocolError(f"products/{name} cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ProtocolError(f"products/{name} is no file")
            yield file

    @contextmanager
    def _create(self, name: str) -> Iterator[IO[bytes]]:
        """Make a file that the child may read, in one step."""
        part = name + _PART
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with ExitStack() as stack:
            descriptor = os.open(part, flags, 0o644, dir_fd=self._folder)
            yield stack.enter_context(os.fdopen(descriptor, "wb"))
            # The worker's own files are its user's alone.
            os.fchmod(descriptor, 0o644)
        os.rename(part, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _answer(self, key: str, document: dict[str, Any]) -> None:
        with self._create(key + ANSWER) as file:
            file.write(json.dumps(document).encode())


def _keys(names: list[str], kind: str) -> list[str]:
    found = (name.removesuffix(kind) for name in sorted(names) if name.endswith(kind))
    return [key for key in found if _KEY.fullmatch(key)]
