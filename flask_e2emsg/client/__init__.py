"""The Python client: seals, opens, keeps and talks (docs/clients.md, docs/crypto.md)."""
