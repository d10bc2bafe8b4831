"""Tests of the delivery layer."""
