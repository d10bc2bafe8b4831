"""Black-box acceptance: real servers, an independent client, docs/protocol.md as the judge."""
