"""metalr."""
