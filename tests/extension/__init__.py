"""Tests of the extension as a host sees it."""
