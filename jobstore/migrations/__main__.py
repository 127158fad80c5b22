"""`python -m jobstore.migrations MESSAGE`: write the revision that the tables now need."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from jobstore.database import make_engine, migrate
from jobstore.settings import Settings


def main() -> None:
    """Compare a freshly migrated database with the mapped classes and write the difference."""
    with tempfile.TemporaryDirectory() as folder:
        engine = make_engine(Settings(home=Path(folder)))
        migrate(engine)
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", "jobstore:migrations")
            config.attributes["connection"] = connection
            number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
            command.revision(
                config, " ".join(sys.argv[1:]), autogenerate=True, rev_id=f"{number:04d}"
            )


if __name__ == "__main__":
    main()
