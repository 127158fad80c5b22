"""Checks specs by what the workers published of their method."""

import json
from collections.abc import Sequence

from atmc_spec import SPECS
from jobstore.tables import Document


class SpecReader:
    """Checks the specs of one method."""

    def __init__(self, method: str, schema: Document) -> None:
        known = SPECS.get(method)
        # A worker of another version may take other specs than this version's models do.
        same = known is not None and json.loads(json.dumps(known.json_schema())) == schema
        self._known = known if same else None
        self._schema = schema

    def check(self, spec: Document, beside: Sequence[str]) -> None:
        """Raise `InvalidInput`, with a dotted path, unless the spec is valid.

        `beside` are the fields that a job has beside its spec, named where one is unknown.
        """
        if self._known is not None:
            self._known.read(spec, beside)
            return
        # Imported here: jsonschema loads whatever else it finds, which is half of the start of a
        # process where the parsers of all its formats are installed, and few services need it.
        from api.catalogue.foreign import check

        check(spec, self._schema, beside)
