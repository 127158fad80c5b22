"""What stages of jobs made, by the key of all that it depends on; a tenant's jobs share it.

An attempt `ask`s for a key. It is given what was made, or it is to make it and holds the claim on
it, or it is to wait for the attempt that does. A claim holds as long as the attempt holds its job:
of one that has died or was cancelled the next to ask takes it over. So of several that need a
product at once one makes it.

A product is a blob with a count: `ProductUse` says which jobs made or took it. It goes with the
last of them, or once it was not used for as long as checkpoints are kept.
"""

from dataclasses import dataclass

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from jobstore.dialects import clock, insert_if_absent, now
from jobstore.leases import Attempt, hold
from jobstore.objects import Stored
from jobstore.tables import AT_WORK, Job, Product, ProductUse

_UNSYNCED = {"synchronize_session": False}


@dataclass(frozen=True)
class Made:
    """A product that is there: its blob's digest, the job that made it, and its seconds there."""

    sha256: str
    job_id: str
    seconds: float


@dataclass(frozen=True)
class MadeNow:
    """The job that makes the product now."""

    job_id: str


def ask(session: Session, attempt: Attempt, key: str, stage: str) -> Made | MadeNow | None:
    """Return the product, or who makes it now; None: this attempt is to.

    Raises `LeaseLost`.
    """
    hold(session, attempt)
    tenant = attempt.tenant
    row = {"tenant_id": tenant, "key": key, "stage": stage, "used_at": now(session)}
    insert_if_absent(session, Product, row)
    product = _locked(session, tenant, key)
    made = _made(product)
    if made is not None:
        product.used_at = now(session)
        _note_use(session, attempt, key)
        return made
    if product.claimed_by is not None and product.claimed_by != attempt.job_id:
        holds = select(
            exists().where(
                AT_WORK,
                Job.id == product.claimed_by,
                Job.attempt == product.claimed_attempt,
                Job.lease_expires_at > clock(),
            )
        )
        if session.scalars(holds).one():
            return MadeNow(product.claimed_by)
    product.claimed_by, product.claimed_attempt = attempt.job_id, attempt.number
    product.used_at = now(session)
    return None


def publish(
    session: Session, attempt: Attempt, key: str, stage: str, stored: Stored, seconds: float
) -> None:
    """Name the stored blob as the product; what is there already stays. Raises `LeaseLost`."""
    hold(session, attempt)
    row = {"tenant_id": attempt.tenant, "key": key, "stage": stage, "used_at": now(session)}
    insert_if_absent(session, Product, row)
    product = _locked(session, attempt.tenant, key)
    if product.sha256 is None:
        product.sha256, product.bytes, product.seconds = stored.sha256, stored.bytes, seconds
        product.made_by, product.used_at = attempt.job_id, now(session)
        product.claimed_by = product.claimed_attempt = None
    _note_use(session, attempt, key)


def renounce(session: Session, attempt: Attempt, key: str) -> None:
    """Give the attempt's claim up: it will not publish the product. Raises `LeaseLost`."""
    hold(session, attempt)
    mine = (Product.tenant_id == attempt.tenant, Product.key == key)
    session.execute(
        delete(Product).where(
            *mine, Product.sha256.is_(None), Product.claimed_by == attempt.job_id
        ),
        execution_options=_UNSYNCED,
    )


def refuse(session: Session, attempt: Attempt, key: str, sha256: str) -> None:
    """Let a product count as absent whose bytes are gone, or others, or none that can be used.

    Raises `LeaseLost`.
    """
    hold(session, attempt)
    broken = update(Product).where(
        Product.tenant_id == attempt.tenant, Product.key == key, Product.sha256 == sha256
    )
    nothing = dict.fromkeys(("sha256", "bytes", "seconds", "made_by"))
    session.execute(broken.values(**nothing), execution_options=_UNSYNCED)


def forget_job(session: Session, job_id: str, tenant: str) -> list[str]:
    """Forget what the job made or took; returns the digests of products that no job is left of."""
    used = select(ProductUse.key).where(ProductUse.job_id == job_id)
    keys = session.scalars(used).all()
    session.execute(
        delete(ProductUse).where(ProductUse.job_id == job_id), execution_options=_UNSYNCED
    )
    shared = exists().where(ProductUse.tenant_id == tenant, ProductUse.key == Product.key)
    of_nobody = (Product.tenant_id == tenant, Product.key.in_(keys), ~shared)
    gone = session.scalars(select(Product.sha256).where(*of_nobody)).all()
    session.execute(delete(Product).where(*of_nobody), execution_options=_UNSYNCED)
    claimed = (Product.tenant_id == tenant, Product.claimed_by == job_id)
    session.execute(
        delete(Product).where(*claimed, Product.sha256.is_(None)), execution_options=_UNSYNCED
    )
    return [sha256 for sha256 in gone if sha256 is not None]


def expire(session: Session, tenant: str, keep_s: float, at_once: int) -> bool:
    """Drop products that were not used for so long; returns whether there may be more."""
    old = (
        select(Product.key)
        .where(Product.tenant_id == tenant, Product.used_at < clock(-keep_s))
        .limit(at_once)
        .with_for_update(skip_locked=True)
    )
    keys = session.scalars(old).all()
    for kind in (ProductUse, Product):
        gone = delete(kind).where(kind.tenant_id == tenant, kind.key.in_(keys))
        session.execute(gone, execution_options=_UNSYNCED)
    return len(keys) == at_once


def _locked(session: Session, tenant: str, key: str) -> Product:
    query = select(Product).where(Product.tenant_id == tenant, Product.key == key)
    options = {"populate_existing": True}
    return session.scalars(query.with_for_update(), execution_options=options).one()


def _made(product: Product) -> Made | None:
    if product.sha256 is None or product.made_by is None:
        return None
    return Made(product.sha256, product.made_by, product.seconds or 0.0)


def _note_use(session: Session, attempt: Attempt, key: str) -> None:
    row = {"tenant_id": attempt.tenant, "key": key, "job_id": attempt.job_id}
    insert_if_absent(session, ProductUse, row)
