"""What the actions that speak HTTP share: where to, with which headers, and what went wrong."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.config import Config
from engine.errors import ActionFailed
from engine.procedures.actions import Context

if TYPE_CHECKING:
    import httpx


def config(ctx: Context) -> Config:
    """The engine's config, as the composition root passes it on."""
    found = ctx.extra.get("config")
    return found if isinstance(found, Config) else Config()


def http_url(url: str) -> str:
    """The URL as it is; raises ValueError unless it is an http or https URL with a host."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{url!r} is not a URL such as https://host/path")
    return url


def place(url: str) -> str:
    """Scheme, host and port only: paths and queries of webhooks hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def headers(ctx: Context, plain: Mapping[str, str], secret: Mapping[str, str]) -> dict[str, str]:
    """`plain` headers, and the `secret` ones: by header, the parameter whose secret is the value.

    Raises ActionFailed, without the value, for a secret that is not there or cannot be a header.
    """
    result = dict(plain)
    for header, name in secret.items():
        value = ctx.secrets.get(name)
        if value is None:
            raise ActionFailed(f"The header {header} wants the secret {name}, which this run does "
                               "not have.", hint=f"Declare {name} under params as type: secret.")
        if not value.isprintable() or not value.isascii():
            raise ActionFailed(f"The secret {name} cannot be a header: it holds line breaks or "
                               "other characters that a header may not have.")
        result[header] = value
    return result


def client(url: str, timeout_s: float) -> httpx.AsyncClient:
    """A client for one request: no redirects; the environment's proxy, except on this machine."""
    import httpx

    parts = urlsplit(url)
    return httpx.AsyncClient(timeout=timeout_s, trust_env=not _local(parts.hostname or ""),
                             verify=parts.scheme == "https")


def reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    import httpx

    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "it took too long"
    return str(error) or type(error).__name__


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
