"""The wire protocol without any I/O: frames, strict JSON, the cursor of one connection."""
