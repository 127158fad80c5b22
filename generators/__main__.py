"""`python -m generators`, or `make generate`: write what is out of date."""

from pathlib import Path

from generators import sync, types

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the files and name them."""
    for path, content in (sync.written() | types.written()).items():
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
