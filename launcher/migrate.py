"""`python -m launcher.migrate`: bring the tables of the database up to date, then exit."""

from jobstore.database import make_engine, migrate
from jobstore.private import keep_private
from jobstore.settings import Settings


def main() -> None:
    """Migrate the database that `ATMC_DATABASE_URL` names; safe to run twice at once."""
    keep_private()
    migrate(make_engine(Settings()))


if __name__ == "__main__":
    main()
