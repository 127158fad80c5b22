"""Pages of lists that are sorted and filtered: jobs, models, data sets.

A page goes on after the last row of the one before (keyset): what is made meanwhile neither shifts
nor repeats what follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, literal_column, tuple_
from sqlalchemy.orm import Session

from jobstore.cursors import decode_cursor, encode_cursor
from jobstore.labels import labelled


class Sort(StrEnum):
    """The order of a list; ids sort by the time they were made."""

    NEWEST = "-created_at"
    OLDEST = "created_at"
    NAME = "name"
    NAME_DOWN = "-name"


@dataclass(frozen=True)
class Which:
    """Which rows of a list are asked for, and in what order; times are `after` <= time < `before`.

    `cursor` is the `next` of the page before, which has to be of the same order.
    """

    labels: tuple[tuple[str, str], ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    sort: Sort = Sort.NEWEST
    limit: int = 50
    cursor: str | None = None


ALL = Which()
"""Everything, newest first."""


def page_of(
    session: Session, query: Select[Any], kind: type[Any], prefix: str, which: Which
) -> tuple[Sequence[Any], str | None]:
    """Return a page of the rows that the query finds, and the cursor of those after them.

    `prefix` is that of their ids. Raises `InvalidCursor`.
    """
    query = labelled(query, kind, which.labels)
    if which.created_after is not None:
        query = query.where(kind.created_at >= which.created_after)
    if which.created_before is not None:
        query = query.where(kind.created_at < which.created_before)
    keys: list[ColumnElement[Any]] = [kind.id]
    if which.sort in (Sort.NAME, Sort.NAME_DOWN):
        # In the words of the index; what has no name sorts as an empty one.
        keys.insert(0, func.coalesce(kind.name, literal_column("''")))
    down = which.sort.startswith("-")
    if which.cursor is not None:
        values = decode_cursor(which.cursor, prefix, which.sort)
        there, reached = tuple_(*keys), tuple_(*map(literal, values))
        query = query.where(there < reached if down else there > reached)
    query = query.order_by(*(key.desc() if down else key for key in keys))
    found = session.scalars(query.limit(which.limit + 1)).all()
    page = found[: which.limit]
    if len(found) <= which.limit:
        return page, None
    last = page[-1]
    values = [last.name or "", last.id] if len(keys) > 1 else [last.id]
    return page, encode_cursor(*values, sort=which.sort)
