"""Vectors of docs/crypto.md that clients in any language share, and what makes them."""
