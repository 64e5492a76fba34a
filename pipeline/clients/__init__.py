"""The world behind the ports: each client maps its foreign errors in one place."""
