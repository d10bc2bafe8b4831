"""What holds a secret does not show it: `repr` and `str` of every dataclass and struct."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

import flask_e2emsg

CANARY = "canary-in-a-field"
NAMES_OF_SECRETS = (
    *("token", "content", "content_text", "encrypted_content", "key", "public_key", "secret"),
    *("ticket", "text", "claims", "header", "password", "bus_url", "data"),
)


def modules() -> Iterator[types.ModuleType]:
    for found in pkgutil.walk_packages(flask_e2emsg.__path__, "flask_e2emsg."):
        yield importlib.import_module(found.name)


def is_record(kind: object) -> bool:
    """Whether it is a class whose `repr` is made of its fields."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct)
    )


RECORDS = sorted(
    {
        value
        for module in modules()
        for value in vars(module).values()
        if is_record(value) and value.__module__ == module.__name__
    },
    key=lambda kind: f"{kind.__module__}.{kind.__qualname__}",
)


def fields_of(kind: type[Any]) -> dict[str, Any]:
    """The fields' names and types."""
    hints = typing.get_type_hints(kind, vars(importlib.import_module(kind.__module__)))
    if dataclasses.is_dataclass(kind):
        return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(kind)}
    return {name: hints[name] for name in kind.__struct_fields__}


def filled(name: str, hint: Any) -> Any:
    """A value of a type; the canary where it would be a secret."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        kinds = [one for one in typing.get_args(hint) if one is not type(None)]
        return filled(name, bytes if bytes in kinds else kinds[0])
    if hint is bytes:
        return CANARY.encode()
    if hint is str:
        return CANARY if name in NAMES_OF_SECRETS else "harmless"
    if is_record(hint):
        return instance(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(origin, type) and origin.__name__ in ("list", "Sequence", "deque", "frozenset"):
        return [filled(name, arguments[0])]
    if isinstance(origin, type) and origin.__name__ in ("dict", "Mapping"):
        return {filled(name, arguments[0]): filled(name, arguments[1])}
    plain: dict[Any, Any] = {
        int: 7,
        float: 7.0,
        bool: True,
        datetime: datetime(2026, 1, 1, tzinfo=UTC),
        UUID: UUID(int=7),
        type(None): None,
    }
    return plain.get(hint)


def instance(kind: type[Any]) -> Any:
    """A record of a class with a canary in each of its secrets, and in those of its parts."""
    return kind(**{name: filled(name, hint) for name, hint in fields_of(kind).items()})


def shown(kind: type[Any]) -> str:
    made = instance(kind)
    parts = [repr(made), str(made), f"{made}", repr([made]), repr({"it": made})]
    return " ".join(parts)


@dataclasses.dataclass
class Careless:
    token: str
    number: int


class CarelessToo(msgspec.Struct):
    envelopes: list[bytes]


@pytest.mark.parametrize("kind", [Careless, CarelessToo])
def test_a_record_that_shows_a_secret_is_noticed(kind: type[Any]) -> None:
    assert CANARY in shown(kind)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__qualname__)
def test_a_record_hides_what_is_secret_in_it(kind: type[Any]) -> None:
    assert CANARY not in shown(kind), (
        f"{kind.__qualname__} shows a secret: give the field `repr=False`, or the struct a "
        "`__repr__` of its own; a log or an error tracker would write it"
    )
