"""The only code that knows Flask requests: the gate, the socket, the REST routes."""
