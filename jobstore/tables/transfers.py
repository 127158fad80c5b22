"""What is still to be fetched from elsewhere, or put there."""

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from jobstore.dialects import clock
from jobstore.tables.base import ID, Base, Document, Owned


class Transfer(Owned, Base):
    """The file of a model or data set that is to be fetched, or a job's results to be put.

    `id` is the model's, data set's or job's; `kind` is `model`, `dataset` or `results`. `asked` is
    what is to be done, without secrets. `bytes` count as stored until they are. `attempts` numbers
    the tries and is the fencing token: while one is made, `due_at` is when it is taken for dead.
    """

    __tablename__ = "transfers"
    __table_args__ = (Index(None, "due_at"), Index(None, "tenant_id"))

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    asked: Mapped[Document]
    bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(insert_default=clock())
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(insert_default=clock())
