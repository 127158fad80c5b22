"""Alembic's entry: runs the revisions on the connection that `jobstore.database.migrate` opened.

To write a revision: `python -m jobstore.migrations MESSAGE`.
"""

from typing import Any, Literal

from alembic import context

from jobstore.dialects import UtcDateTime
from jobstore.tables import Base


def _render_item(kind: str, item: object, _context: Any) -> str | Literal[False]:
    # A revision must stay as it was written, so it names no type of ours.
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=_render_item,
)
with context.begin_transaction():
    context.run_migrations()
