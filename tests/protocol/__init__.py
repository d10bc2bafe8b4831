"""The wire protocol, which needs neither network nor database."""
