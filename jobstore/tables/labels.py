"""Labels by which jobs, models and data sets are found; their rows show them, too."""

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.tables.base import ID, Base, Owned


class Label(Owned, Base):
    """A label of the job, model or data set `object_id`, for lists that filter by it.

    It says again what the row's `labels` say: an index into documents differs between databases.
    """

    __tablename__ = "labels"
    __table_args__ = (Index(None, "tenant_id", "key", "value", "object_id"),)

    object_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))
