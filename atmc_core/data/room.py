"""How much of a device's memory a job's images may take."""

import os
from pathlib import Path

import torch

_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
#: The rest is for the network, its gradients, and what attacks hold.
_GPU_SHARE, _CPU_SHARE = 0.4, 0.2


def room_for_images(device: torch.device) -> int:
    """Bytes of decoded images that may lie in the device's memory."""
    if device.type == "cuda":
        return int(_GPU_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(_CPU_SHARE * _main_memory())


def _main_memory() -> int:
    """Of this machine, or what this container may have of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CONTAINER_LIMITS:
        if path.exists() and (text := path.read_text().strip()).isdigit():
            return min(total, int(text))
    return total
