"""Who may import whom: protocol < store < delivery < transport < the modules at the top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import flask_e2emsg

PACKAGE = Path(flask_e2emsg.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
LEAVES = ("errors", "config", "redaction", "signals")
BELOW: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LEAVES, ()),
    "protocol": (),
    "store": ("protocol",),
    "delivery": ("protocol", "store"),
    "transport": ("protocol", "store", "delivery"),
    "client": ("protocol",),
}
FRAMEWORKS = ("flask", "werkzeug", "gunicorn", "gevent")
FOREIGN = {
    **dict.fromkeys((*LEAVES, "protocol", "delivery", "client"), (*FRAMEWORKS, "sqlalchemy")),
    "store": FRAMEWORKS,
}


def imports(module: Path) -> Iterator[str]:
    """Everything that a module imports, as absolute dotted names."""
    folder = ("flask_e2emsg", *module.parent.parts)
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            prefix = [*base, node.module] if node.module else [*base]
            yield from (".".join([*prefix, name.name]) for name in node.names)


def layer(module: Path) -> str:
    """The folder of a module, or its own name at the top of the package."""
    return module.parts[0] if len(module.parts) > 1 else module.stem


LAYERED = [module for module in MODULES if layer(module) in BELOW]


@pytest.mark.parametrize("module", LAYERED, ids=str)
def test_a_module_imports_only_its_own_folder_and_the_layers_below(module: Path) -> None:
    allowed = (layer(module), *LEAVES, *BELOW[layer(module)])
    ours = [name for name in imports(module) if name.startswith("flask_e2emsg")]
    assert not [name for name in ours if name.split(".")[1] not in allowed]


@pytest.mark.parametrize("module", LAYERED, ids=str)
def test_a_lower_layer_knows_nothing_of_the_frameworks_above_it(module: Path) -> None:
    outside = [name for name in imports(module) if not name.startswith("flask_e2emsg")]
    assert not [name for name in outside if name.startswith(FOREIGN.get(layer(module), ()))]


def test_every_folder_of_the_package_has_its_place() -> None:
    assert {module.parts[0] for module in MODULES if len(module.parts) > 1} <= BELOW.keys()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_nobody_decodes_tokens_past_the_verifying_path(module: Path) -> None:
    # Flask-JWT-Extended's decode_token() accepts refresh tokens and revoked ones.
    assert "decode_token(" not in (PACKAGE / module).read_text()


def test_the_public_names_are_these() -> None:
    assert sorted(flask_e2emsg.__all__) == [
        "ConfigurationError",
        "E2EMessaging",
        "E2EMsgError",
        "MessagingUserMixin",
        "SchemaMissing",
        "message_delivered",
        "message_stored",
        "schema",
        "user_connected",
        "user_disconnected",
    ]
    assert all(hasattr(flask_e2emsg, name) for name in flask_e2emsg.__all__)
