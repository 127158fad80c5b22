"""`python -m atmc_client`: the `atmc` command line."""

from atmc_client.cli import main

if __name__ == "__main__":
    main()
