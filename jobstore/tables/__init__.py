"""The tables, as mapped classes. Alembic's migrations make them; a test holds the two together.

Whoever imports this has all of them in `Base.metadata`.
"""

from jobstore.tables.audit import AuditChain, AuditRecord
from jobstore.tables.base import DEFAULT_TENANT, Base, Document, Owned
from jobstore.tables.bookkeeping import CatalogueRow, IdempotencyKey, Metric, WorkerRow
from jobstore.tables.jobs import AT_WORK, WAITING, Artifact, Event, Job
from jobstore.tables.labels import Label
from jobstore.tables.products import Product, ProductUse
from jobstore.tables.sweeps import UNDER_WAY, Sweep, SweepEvent, SweepTrial
from jobstore.tables.tenants import Key, Tenant
from jobstore.tables.transfers import Transfer
from jobstore.tables.uploads import Blob, Dataset, IncomingUpload, Model, UploadChunk
from jobstore.tables.webhooks import Webhook, WebhookAttempt, WebhookDelivery

__all__ = [
    "AT_WORK",
    "DEFAULT_TENANT",
    "UNDER_WAY",
    "WAITING",
    "Artifact",
    "AuditChain",
    "AuditRecord",
    "Base",
    "Blob",
    "CatalogueRow",
    "Dataset",
    "Document",
    "Event",
    "IdempotencyKey",
    "IncomingUpload",
    "Job",
    "Key",
    "Label",
    "Metric",
    "Model",
    "Owned",
    "Product",
    "ProductUse",
    "Sweep",
    "SweepEvent",
    "SweepTrial",
    "Tenant",
    "Transfer",
    "UploadChunk",
    "Webhook",
    "WebhookAttempt",
    "WebhookDelivery",
    "WorkerRow",
]
