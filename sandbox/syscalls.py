"""The system calls that no job and no look into a file needs, by their numbers.

Some of them let a process out of its sandbox, others are where kernels have been broken into.
"""

from collections.abc import Mapping

# The bits of clone that make namespaces: time, mount, cgroup, UTS, IPC, user, pid, network.
NAMESPACES = 0x7E020080

_Numbers = Mapping[str, int]

#: Calls that answer EPERM, beside those whose arguments are looked at.
DENIED: Mapping[str, _Numbers] = {
    "x86_64": {
        # Other processes' memory and descriptors.
        "ptrace": 101,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "process_madvise": 440,
        "process_mrelease": 448,
        "kcmp": 312,
        "pidfd_getfd": 438,
        "pidfd_send_signal": 424,
        # Namespaces and mounts.
        "unshare": 272,
        "setns": 308,
        "mount": 165,
        "umount2": 166,
        "pivot_root": 155,
        "chroot": 161,
        "move_mount": 429,
        "open_tree": 428,
        "fsopen": 430,
        "fsconfig": 431,
        "fsmount": 432,
        "fspick": 433,
        "mount_setattr": 442,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "fanotify_init": 300,
        # Links and nodes, which would mislead who reads the folder afterwards.
        "symlink": 88,
        "symlinkat": 266,
        "mknod": 133,
        "mknodat": 259,
        # What all processes of a user share.
        "keyctl": 250,
        "add_key": 248,
        "request_key": 249,
        "msgget": 68,
        "semget": 64,
        "shmget": 29,
        "mq_open": 240,
        # The kernel itself.
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        # It makes calls, of sockets too, that no filter sees.
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "kexec_load": 246,
        "kexec_file_load": 320,
        "init_module": 175,
        "finit_module": 313,
        "delete_module": 176,
        "reboot": 169,
        "swapon": 167,
        "swapoff": 168,
        "acct": 163,
        "quotactl": 179,
        "quotactl_fd": 443,
        "syslog": 103,
        "settimeofday": 164,
        "clock_settime": 227,
        "clock_adjtime": 305,
        "adjtimex": 159,
        "sethostname": 170,
        "setdomainname": 171,
        "vhangup": 153,
        "lookup_dcookie": 212,
        # Only this processor has them.
        "iopl": 172,
        "ioperm": 173,
        "modify_ldt": 154,
        "uselib": 134,
    },
    "aarch64": {
        "ptrace": 117,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "process_madvise": 440,
        "process_mrelease": 448,
        "kcmp": 272,
        "pidfd_getfd": 438,
        "pidfd_send_signal": 424,
        "unshare": 97,
        "setns": 268,
        "mount": 40,
        "umount2": 39,
        "pivot_root": 41,
        "chroot": 51,
        "move_mount": 429,
        "open_tree": 428,
        "fsopen": 430,
        "fsconfig": 431,
        "fsmount": 432,
        "fspick": 433,
        "mount_setattr": 442,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "fanotify_init": 262,
        "symlinkat": 36,
        "mknodat": 33,
        "keyctl": 219,
        "add_key": 217,
        "request_key": 218,
        "msgget": 186,
        "semget": 190,
        "shmget": 194,
        "mq_open": 180,
        "bpf": 280,
        "perf_event_open": 241,
        "userfaultfd": 282,
        "io_uring_setup": 425,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "kexec_load": 104,
        "kexec_file_load": 294,
        "init_module": 105,
        "finit_module": 273,
        "delete_module": 106,
        "reboot": 142,
        "swapon": 224,
        "swapoff": 225,
        "acct": 89,
        "quotactl": 60,
        "quotactl_fd": 443,
        "syslog": 116,
        "settimeofday": 170,
        "clock_settime": 112,
        "clock_adjtime": 266,
        "adjtimex": 171,
        "sethostname": 161,
        "setdomainname": 162,
        "vhangup": 58,
        "lookup_dcookie": 18,
    },
}

#: Calls that lead a socket somewhere; EPERM, unless processes have to reach each other.
OF_SOCKETS: Mapping[str, _Numbers] = {
    "x86_64": {"connect": 42, "bind": 49, "listen": 50, "accept": 43, "accept4": 288},
    "aarch64": {"connect": 203, "bind": 200, "listen": 201, "accept": 202, "accept4": 242},
}

#: Calls whose arguments are looked at. `clone3` has them in memory, where no filter can look: it
#: answers ENOSYS, and the C library makes the older call.
LOOKED_AT: Mapping[str, _Numbers] = {
    "x86_64": {"clone": 56, "clone3": 435, "socket": 41, "socketpair": 53},
    "aarch64": {"clone": 220, "clone3": 435, "socket": 198, "socketpair": 199},
}
