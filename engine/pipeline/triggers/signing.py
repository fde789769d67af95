"""Signatures of requests: ours over everything that matters of one, and GitHub's over its body. Pure.

Ours: `x-opsdeck-signature` is the hex HMAC-SHA256, with the sender's key, of five lines without a last
newline: method, path with its query, timestamp, nonce, and the body as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import re

SENDER = "x-opsdeck-sender"
TIMESTAMP = "x-opsdeck-timestamp"
NONCE = "x-opsdeck-nonce"
SIGNATURE = "x-opsdeck-signature"
GITHUB = "x-hub-signature-256"
SHORTEST_KEY = 16
NONCES = re.compile(r"[A-Za-z0-9_-]{16,80}")
_TIME = re.compile(r"[0-9]{1,12}")


def signature(key: str, method: str, path: str, timestamp: str, nonce: str, body: bytes) -> str:
    head = "\n".join((method, path, timestamp, nonce, "")).encode()
    return hmac.new(key.encode(), head + body, hashlib.sha256).hexdigest()


def headers(key: str, sender: str, method: str, path: str, timestamp: int, nonce: str, body: bytes
            ) -> dict[str, str]:
    """What a sender puts on a request. `nonce`: 16 characters or more that are never used again."""
    return {SENDER: sender, TIMESTAMP: str(timestamp), NONCE: nonce,
            SIGNATURE: signature(key, method, path, str(timestamp), nonce, body)}


def right(key: str, method: str, path: str, timestamp: str, nonce: str, body: bytes, given: str) -> bool:
    """Whether the signature is the key's, in a time that does not depend on it."""
    plain = bool(_TIME.fullmatch(timestamp)) and bool(NONCES.fullmatch(nonce))
    wanted = signature(key, method, path, timestamp, nonce, body)
    return hmac.compare_digest(wanted.encode(), given.encode(errors="replace")) and plain


def right_github(key: str, body: bytes, given: str) -> bool:
    """As `right`, for `sha256=…` over the body.
    https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
    """
    wanted = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), given.encode(errors="replace"))
