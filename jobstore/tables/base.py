"""What the tables have in common."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Double, Index, MetaData, String, Text, TextClause, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobstore.dialects import UtcDateTime

Document = dict[str, Any]

DEFAULT_TENANT = "default"
"""Everything belongs to this tenant until there are keys."""

ID = String(40)
TENANT_ID = String(64)
SHA256 = String(64)


class Base(DeclarativeBase):
    """Constraints are named by rule, so that a migration can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime(),
        # none_as_null: an absent document is NULL, not the JSON text "null".
        Document: JSON(none_as_null=True),
        int: BigInteger(),
        float: Double(),
    }


class Owned:
    """A row of one tenant; `jobstore.tenancy` fills it in and keeps the others from seeing it."""

    # Workers of a version that knows no tenants rely on the database's default.
    tenant_id: Mapped[str] = mapped_column(TENANT_ID, server_default=DEFAULT_TENANT)


class Described:
    """A row that its user may give a name, labels and metadata; `jobstore.labels` writes these.

    `notes` are what callers know as `metadata`, which is something else of a mapped class.
    """

    name: Mapped[str | None] = mapped_column(Text)
    labels: Mapped[Document] = mapped_column(server_default="{}")
    notes: Mapped[Document] = mapped_column(server_default="{}")


def listed_by(table: str) -> tuple[Index, Index]:
    """Return the indexes by which a table of `Described` rows is listed by time and by name."""
    named = text("coalesce(name, '')")
    return Index(None, "tenant_id", "created_at"), Index(
        f"ix_{table}_named", "tenant_id", named, "id"
    )


def only_where(condition: TextClause) -> dict[str, Any]:
    """Return the arguments that index only the rows that meet the condition.

    Such an index stays small when the rows of years pile up.
    """
    return dict.fromkeys(("postgresql_where", "sqlite_where"), condition)
