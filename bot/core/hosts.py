"""Which hosts are this machine, where plain http is no risk."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
