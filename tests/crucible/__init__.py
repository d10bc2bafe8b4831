"""The crucible: load and faults together, judged from outside.

    swarm ── proxies ── gunicorn masters ──┬── proxy ── PostgreSQL
      │                     ▲              └── proxy ── Redis
   journals              nemesis ──▶ faults
      └──────────▶ checker ◀── database, logs, census

Clients keep a journal of all that they did and saw. When the faults are over and everybody has what
is there, the checker holds the journals against each other, the database and the logs. It asks the
server for nothing. `python -m tests.crucible --profile smoke` runs it; `make crucible` for longer.
"""
