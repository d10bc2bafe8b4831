"""The client against a real gunicorn with gevent."""
