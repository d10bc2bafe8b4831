"""The settings, read once from `app.config` by `init_app`, checked, and frozen.

A wrong value fails in `init_app` with a text that names the key.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeGuard

import limits

from .errors import ConfigurationError

PREFIX = "E2EMSG_"

# As browsers write it (RFC 6454, section 6.2): anything else would never match.
_ORIGIN = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_REDIS = re.compile(r"rediss?://[^/?#\s]+(?:/\S*)?|unix:///\S+")


@dataclass(frozen=True, slots=True)
class Settings:
    """One field per key: `max_in_flight` is read from `E2EMSG_MAX_IN_FLIGHT`."""

    url_prefix: str = "/api"  # where the blueprint lives; starts with a slash
    # How workers wake each other. None: by the database if it is PostgreSQL, else not at all;
    # "local", "postgresql", or the address of a Redis, which may hold a password.
    bus_url: str | None = field(default=None, repr=False)
    bus_channel: str | None = None  # None: one for each secret and, on Redis, database
    allowed_origins: str | Sequence[str] | None = None  # None: the request's own host; "*": any
    max_connections_per_user: int = 10  # live sockets of one user, over all workers
    max_connections: int | None = None  # live sockets of one process; None: below what it can take
    max_frame_bytes: int = 131072  # of one frame or REST body, in bytes of UTF-8
    max_in_flight: int = 256  # entries sent beyond the client's last ack, per connection
    heartbeat_seconds: float = 25.0  # ping interval; silence for two of them ends the connection
    sweep_seconds: float = 2.0  # the longest that a lost wake-up delays a message
    write_timeout_seconds: float = 10.0  # a client that takes no byte for so long is cut off
    rate_limit: str | None = "1200/minute"  # sends per user, over all workers; None: any number
    max_undelivered: int | None = 200_000  # entries that may wait for one user; None: any number
    max_undelivered_per_sender: int | None = 20_000  # messages of one sender among them
    hide_refusals: bool = True  # answer for who refuses a sender as for who does not exist
    check_envelopes: bool = True  # refuse content that is no well-formed envelope
    require_durability: bool = False  # take no message that a crash of the database may lose
    retention_days: float | None = None  # delivered messages older than this go; None keeps them
    required_claims: Sequence[str] = ("exp", "jti", "type")  # an access token without these is 401

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read the `E2EMSG_*` keys of an app's configuration.

        Raises:
            ConfigurationError: a value has a wrong type or range, or a key is unknown.
        """
        names = {one.name for one in fields(cls)}
        given = {
            key.removeprefix(PREFIX).lower(): value
            for key, value in config.items()
            if key.startswith(PREFIX)
        }
        if unknown := sorted(given.keys() - names):
            keys = ", ".join(PREFIX + name.upper() for name in unknown)
            raise ConfigurationError(f"Unknown configuration: {keys}. See docs/configuration.md.")
        settings = cls(**given)
        settings._check()
        return settings

    def _check(self) -> None:
        self._require("url_prefix", _is_prefix(self.url_prefix), 'a path such as "/api"')
        origins = self.allowed_origins
        self._require(
            "allowed_origins",
            origins is None or origins == "*" or _is_list_of_origins(origins),
            'None, "*" or a list of origins such as "https://app.example.com", without a path',
        )
        self._require(
            "bus_url", _is_bus(self.bus_url), 'None, "local", "postgresql" or "redis://host:6379"'
        )
        channel = self.bus_channel
        self._require(
            "bus_channel", channel is None or _is_text(channel), 'a name such as "staging", or None'
        )
        for name, low, high in (
            ("max_connections_per_user", 1, 100_000),
            ("max_frame_bytes", 1024, 16 * 1024 * 1024),
            ("max_in_flight", 1, 10_000),
        ):
            value = getattr(self, name)
            ok = _is_whole(value) and low <= value <= high
            self._require(name, ok, f"a whole number from {low} to {high}")
        most = self.max_connections
        self._require(
            "max_connections",
            most is None or (type(most) is int and 1 <= most <= 1_000_000),
            "a whole number from 1 to 1000000, or None",
        )
        for name in ("heartbeat_seconds", "sweep_seconds", "write_timeout_seconds"):
            value = getattr(self, name)
            self._require(name, _is_number(value) and 0 < value <= 3600, "seconds, above 0")
        for name in ("max_undelivered", "max_undelivered_per_sender"):
            value = getattr(self, name)
            ok = value is None or (_is_whole(value) and value > 0)
            self._require(name, ok, "a whole number above 0, or None")
        days = self.retention_days
        self._require(
            "retention_days",
            days is None or (_is_number(days) and 0 < days <= 36_500),
            "days, above 0 and at most 36,500, or None",
        )
        self._require(
            "rate_limit",
            _is_rate(self.rate_limit),
            'a rate such as "1200/minute", several with ";", or None',
        )
        for name in ("check_envelopes", "hide_refusals", "require_durability"):
            self._require(name, isinstance(getattr(self, name), bool), "True or False")
        self._require(
            "required_claims",
            _is_list_of_text(self.required_claims) and "exp" in self.required_claims,
            'a list of claim names with "exp" in it',
        )

    def _require(self, name: str, ok: bool, expected: str) -> None:
        if not ok:
            # An address may hold a password.
            given = "what it is" if name.endswith("_url") else repr(getattr(self, name))
            raise ConfigurationError(f"{PREFIX}{name.upper()} must be {expected}, not {given}.")


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and (
        value == "" or (value.startswith("/") and not value.endswith("/"))
    )


def _is_bus(value: object) -> bool:
    if value in (None, "local", "postgresql"):
        return True
    return isinstance(value, str) and _REDIS.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_rate(value: object) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, str) and all(rate.amount > 0 for rate in limits.parse_many(value))
    except ValueError:
        return False


def _is_list_of_origins(value: object) -> bool:
    return _is_list_of_text(value) and all(map(_ORIGIN.fullmatch, value))


def _is_list_of_text(value: object) -> TypeGuard[Collection[str]]:
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(item, str) for item in value
    )


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
