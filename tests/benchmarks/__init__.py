"""The benchmark's arithmetic, and the check that every run has to pass."""
