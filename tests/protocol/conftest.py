"""Made-up examples may take their time: a machine that stands still for a moment is no fault."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
