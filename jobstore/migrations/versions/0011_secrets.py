"""secrets of webhooks are no part of the answers that are kept to be repeated."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_keys = sa.table(
    "idempotency_keys",
    sa.column("tenant_id", sa.String),
    sa.column("scope", sa.String),
    sa.column("key", sa.String),
    sa.column("body", sa.JSON(none_as_null=True)),
)


def upgrade() -> None:
    """Take them out. The keeper seals those of the webhooks, since it has the key."""
    connection = op.get_bind()
    held = sa.cast(_keys.c.body, sa.Text).like('%"whsec_%')
    for row in connection.execute(sa.select(_keys).where(held)).all():
        mine = (_keys.c.tenant_id == row.tenant_id, _keys.c.scope == row.scope)
        which = sa.update(_keys).where(*mine, _keys.c.key == row.key)
        connection.execute(which.values(body=_without_secret(row.body)))


def _without_secret(body: dict[str, Any]) -> dict[str, Any]:
    if isinstance(body.get("webhook"), dict):
        return body | {"webhook": body["webhook"] | {"secret": None}}
    return body | {"secret": None}


def downgrade() -> None:
    """There is nothing to undo: a secret is shown once."""
