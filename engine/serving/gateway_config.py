"""The gateway's config file: JSON, checked as a whole before anything starts."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.errors import UsageError
from engine.serving.prediction_bins import INVALID, OTHER, Bins
from engine.serving.prediction_log import LogSettings
from engine.serving.split import check_weights

NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
VERSION = re.compile(r"[A-Za-z0-9._+:/@-]{1,64}")
# A Unix socket's address has 108 bytes, the last of them a zero.
SOCKET_PATH_LIMIT = 107
MOST_BINS = 64
CLASS_NAME_LIMIT = 64


class VariantConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Where a variant is served: `url` without a path gets `/invocations`."""

    url: str
    version: str | None = None

    @property
    def invocations(self) -> str:
        return self.url.rstrip("/") + "/invocations"


class LogConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`fields`: true, false, or the names of the columns that may be logged.

    `redact`: columns to drop, or `hash:NAME` to hash. `max_bytes` and `max_age_s` say when the file
    rotates; `keep` (files) and `keep_age_s` when rotated ones are deleted.
    """

    path: str
    max_bytes: int = 64 << 20
    max_age_s: float = 86400.0
    keep: int = 8
    keep_age_s: float = 30 * 86400.0
    redact: list[str] = []
    fields: bool | list[str] = True

    def settings(self) -> LogSettings:
        return LogSettings(
            path=Path(self.path), max_bytes=self.max_bytes, max_age_s=self.max_age_s,
            keep=self.keep, keep_age_s=self.keep_age_s, redact=tuple(self.redact),
            fields=self.fields if isinstance(self.fields, bool) else tuple(self.fields))


class BinsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Bins that predictions are counted in: `edges` of a score, or `classes` of a class. `output`: the
    name of the output in a row of an answer, or its place there."""

    output: str | int = 0
    edges: list[float] | None = None
    classes: list[str | int] | None = None

    def bins(self) -> Bins:
        return Bins(self.output, edges=self.edges or (), classes=self.classes or ())

    def problem(self) -> str | None:
        """The first thing that is wrong, as a sentence."""
        if (self.edges is None) == (self.classes is None):
            return "prediction_bins must have edges (of a score) or classes (of a class), not both."
        if isinstance(self.output, int) and self.output < 0:
            return f"prediction_bins.output is {self.output}; a place is 0 or above."
        if self.edges is not None:
            if not 1 <= len(self.edges) <= MOST_BINS:
                return f"prediction_bins.edges has {len(self.edges)} edges; 1 to {MOST_BINS} are allowed."
            if not all(map(math.isfinite, self.edges)) or any(
                    low >= high for low, high in pairwise(self.edges)):
                return "prediction_bins.edges must be finite and each above the one before."
            return None
        names = self.bins().names
        if not self.classes or len(self.classes) > MOST_BINS:
            return f"prediction_bins.classes must name 1 to {MOST_BINS} classes."
        if len(set(names)) != len(names):
            return ("prediction_bins.classes must all differ, and none may be called "
                    f"{OTHER} or {INVALID}.")
        if not all(0 < len(name) <= CLASS_NAME_LIMIT and name.isprintable() for name in names):
            return ("prediction_bins.classes must be 1 to "
                    f"{CLASS_NAME_LIMIT} printable characters each.")
        return None


class GatewayConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Times are seconds, weights percents. `port` 0 takes a free port, named on standard output.

    `key_header` decides which variant a caller gets, `session_header` and `unit_window_s` what counts
    once (`engine.serving.units`). Of requests that are mirrored, `mirror_in_flight` are under way at a
    time, and each keeps its body in memory until then.
    """

    service: str
    port: int
    admin_socket: str
    state_file: str
    champion: str
    variants: dict[str, VariantConfig]
    host: str = "127.0.0.1"
    initial_weights: dict[str, float] | None = None
    timeout_s: float = 5.0
    key_header: str = "x-request-key"
    session_header: str = "x-session-id"
    unit_window_s: float = 60.0
    prediction_log: LogConfig | None = None
    prediction_bins: BinsConfig | None = None
    max_body_bytes: int = 8 << 20
    max_response_bytes: int = 64 << 20
    max_in_flight: int = 2048
    mirror_in_flight: int = 64
    drain_s: float = 10.0

    def weights(self) -> dict[str, float]:
        """The weights to start with when no state was kept: all to the champion unless given."""
        return check_weights(self.initial_weights or {self.champion: 100.0}, list(self.variants))


def read(path: Path) -> GatewayConfig:
    """The config in a file. Raises UsageError with one sentence that says what is wrong with it."""
    where = str(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The config cannot be read: {error.strerror}.", where=where) from None
    return parse(text, where)


def parse(text: bytes, where: str) -> GatewayConfig:
    """The config in a text; `where` is named in errors. Raises UsageError."""
    try:
        config = msgspec.json.decode(text, type=GatewayConfig)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"The config is not valid: {error}.", where=where) from None
    problem = _problem(config)
    if problem is not None:
        raise UsageError(problem, where=where)
    try:
        config.weights()
    except UsageError as error:
        raise UsageError(f"initial_weights: {error.message}", where=where,
                         hint=error.hint) from None
    return config


def _problem(config: GatewayConfig) -> str | None:
    """The first thing that is wrong, as a sentence."""
    for kind, name in [("service", config.service), *(("variant", v) for v in config.variants)]:
        if not NAME.fullmatch(name):
            return f"The {kind} name {name!r} must be lower-case letters, digits, - and _."
    if config.champion not in config.variants:
        return f"The champion {config.champion!r} is not among the variants."
    for name, variant in config.variants.items():
        if (problem := _url_problem(variant.url)) is not None:
            return f"The url of variant {name} {problem}"
        if variant.version is not None and not VERSION.fullmatch(variant.version):
            return f"The version of variant {name} must be 1 to 64 letters, digits or ._+:/@-."
    if not 0 <= config.port <= 65535:
        return f"The port {config.port} is not between 0 and 65535."
    for key, header in (("key", config.key_header), ("session", config.session_header)):
        if not HEADER.fullmatch(header):
            return f"The {key}_header {header!r} is not a header name."
    if config.prediction_bins is not None and (problem := config.prediction_bins.problem()):
        return problem
    if len(config.admin_socket.encode()) > SOCKET_PATH_LIMIT:
        return (f"The admin_socket path has {len(config.admin_socket.encode())} bytes; a Unix "
                f"socket's path has at most {SOCKET_PATH_LIMIT}.")
    positive: dict[str, Any] = {
        "timeout_s": config.timeout_s, "max_body_bytes": config.max_body_bytes,
        "max_response_bytes": config.max_response_bytes, "max_in_flight": config.max_in_flight,
        "mirror_in_flight": config.mirror_in_flight,
        "drain_s": config.drain_s, "unit_window_s": config.unit_window_s}
    if config.prediction_log is not None:
        log = config.prediction_log
        positive |= {"prediction_log.max_bytes": log.max_bytes,
                     "prediction_log.max_age_s": log.max_age_s,
                     "prediction_log.keep_age_s": log.keep_age_s,
                     "prediction_log.keep + 1": log.keep + 1}
    for key, value in positive.items():
        if not math.isfinite(value) or value <= 0:
            return f"{key} is {value:g}; it must be above 0."
    return None


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port_ok = parts.port != 0
    except ValueError:
        return f"{url!r} is not a URL."
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        return f"{url!r} must be like http://127.0.0.1:8080."
    if parts.query or parts.fragment:
        return f"{url!r} must have no query and no fragment."
    return None
