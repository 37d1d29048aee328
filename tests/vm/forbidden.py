"""What the units' hardening lines forbid: for each, what is tried (by attempts.py) and what comes of it.

'done' stands where a line has to let something through. A line without a row is found by tests/test_units.py.
"""

Row = dict[str, str]

BOTH: dict[str, Row] = {
    "NoNewPrivileges=yes": {"setuid_program": "EPERM"},
    "AmbientCapabilities=": {"ambient_capabilities": "EPERM"},
    "ProtectSystem=strict": {"write_to_usr": "EROFS", "write_to_etc": "EROFS", "write_to_var": "EROFS"},
    "PrivateMounts=yes": {"mounts_of_the_host": "EXDEV"},
    "PrivateTmp=yes": {"files_in_tmp": "ENOENT"},
    "DevicePolicy=closed": {"read_the_disk": "EPERM"},
    "ProtectKernelModules=yes": {"kernel_modules": "EACCES"},
    "ProtectControlGroups=yes": {"control_groups": "EROFS"},
    "RestrictNamespaces=yes": {"new_namespace": "EPERM"},
    "RestrictRealtime=yes": {"real_time": "EPERM"},
    "RestrictSUIDSGID=yes": {"setuid_bit": "EPERM"},
    "SystemCallArchitectures=native": {"program_of_32_bits": "ENOSYS"},
    "LockPersonality=yes": {"personality": "EPERM"},
    "MemoryDenyWriteExecute=yes": {"memory_to_write_and_run": "EPERM"},
    "SystemCallFilter=@system-service": {"call_of_no_service": "EPERM"},
    "SystemCallFilter=~@privileged @resources": {
        "call_of_the_privileged": "EPERM",
        "call_about_resources": "EPERM",
    },
    "SystemCallErrorNumber=EPERM": {"call_of_no_service": "EPERM"},  # not the end of the program
    "KeyringMode=private": {"key_of_the_user": "ENOKEY"},
    "UMask=0077": {"file_for_all": "EACCES"},
}
TABLE: dict[str, dict[str, Row]] = {
    "nodeagent": BOTH
    | {
        "CapabilityBoundingSet=": {
            "capability_bounding_set": "EPERM",
            "file_of_another": "EACCES",
            "environment_of_another": "EACCES",
        },
        "ProtectHome=read-only": {"write_to_a_home": "EROFS", "read_a_home": "done"},
        "DeviceAllow=char-195 rw": {"node_of_nvidia": "done"},
        "DeviceAllow=char-nvidia-caps r": {},  # no driver has that name where there is no GPU: nothing to be tried
        "ProtectKernelTunables=yes": {"kernel_setting": "EROFS", "kernel_settings": "EROFS"},
        "ProtectKernelLogs=yes": {"kernel_log": "EACCES", "kernel_log_by_call": "EPERM"},
        "ProtectClock=yes": {"clock": "EPERM", "clock_device": "EPERM"},
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX": {
            "raw_socket": "EAFNOSUPPORT",
            "netlink_socket": "done",
        },
    },
    "provisioner": BOTH
    | {
        "CapabilityBoundingSet=": {"capability_bounding_set": "EPERM"},
        "ProtectProc=invisible": {"process_of_another": "ENOENT"},
        "ProtectHome=yes": {"write_to_a_home": "EACCES", "read_a_home": "EACCES"},
        "PrivateDevices=yes": {"node_of_a_disk": "ENOENT"},
        "PrivateUsers=yes": {"user_of_another": "EOVERFLOW"},
        "ProcSubset=pid": {"proc_beside_processes": "ENOENT"},
        "ProtectKernelTunables=yes": {"kernel_settings": "EROFS"},
        "ProtectKernelLogs=yes": {"kernel_log": "ENOENT", "kernel_log_by_call": "EPERM"},
        "ProtectClock=yes": {"clock": "EPERM"},
        "ProtectHostname=yes": {"host_name": "EPERM"},
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX": {
            "raw_socket": "EAFNOSUPPORT",
            "netlink_socket": "EAFNOSUPPORT",
        },
        "RemoveIPC=yes": {"memory_left_behind": "done"},  # until the unit stops
    },
}
