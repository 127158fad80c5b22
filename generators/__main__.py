"""`python -m generators`, or `make generate`: write what is out of date."""

from generators import sync


def main() -> None:
    """Write the files and name them."""
    for path, content in sync.written().items():
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
            print(path.relative_to(sync.ROOT))


if __name__ == "__main__":
    main()
