"""The tables and what is done with them, on both databases."""
