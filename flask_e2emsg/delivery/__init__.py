"""From COMMIT to the sockets of this process: committer, router, hub, pump, sweeper."""
