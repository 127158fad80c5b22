"""What the calls of a noun are added to."""

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

from api import problems


class Router(APIRouter):
    """A router whose calls are complete: each application takes its routes as they are.

    The framework's `include_router` would build each route again for the application, on its first
    request, which then took a third of a second.
    """

    def __init__(self, **options: Any) -> None:
        """The options are those of `APIRouter`."""
        super().__init__(
            responses=problems.documented(*problems.ANY_CODES),
            generate_unique_id_function=_operation_id,
            **options,
        )


def _operation_id(route: APIRoute) -> str:
    """Name a call by its noun and its function: `jobs_create`, `jobs_list`."""
    return "_".join([*map(str, route.tags), route.name.rstrip("_")])
