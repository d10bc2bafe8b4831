"""The Python client: seals, opens, keeps and talks (docs/clients.md, docs/crypto.md).

Needs the extra `client`: `pip install flask-e2emsg[client]`.
"""

from .client import Client, HistoryPage
from .safety import SafetyNumber
from .store import Store

__all__ = ["Client", "HistoryPage", "SafetyNumber", "Store"]
