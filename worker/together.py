"""`python -m worker.together ARGUMENTS`: torchrun, whose processes know whose children they are.

So one that begins as torchrun is killed can tell, and ends, too (`worker.process.end_with_parent`).
"""

import os

PARENT = "ATMC_TORCHRUN_PID"


def main() -> None:
    """Run torchrun in this process."""
    from torch.distributed.run import main as torchrun

    os.environ[PARENT] = str(os.getpid())
    torchrun()


if __name__ == "__main__":
    main()
