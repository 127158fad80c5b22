"""How much of a device's memory the images of a job may take."""

import os
from pathlib import Path

import torch

# Files with the memory limit of a container (cgroup versions 2 and 1).
_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Images take at most this share of the memory. The rest is for the network, its gradients, and the
# tensors of attacks.
_GPU_SHARE, _CPU_SHARE = 0.4, 0.2


def room_for_images(device: torch.device) -> int:
    """The number of bytes of decoded images that may be in the device's memory.

    On a GPU this depends on how much of its memory is free now.
    """
    if device.type == "cuda":
        return int(_GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(_CPU_SHARE * _main_memory())


def _main_memory() -> int:
    """The bytes of memory of this machine, or of this container if it has a limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CONTAINER_LIMITS:
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return min(total, int(text))
    return total
