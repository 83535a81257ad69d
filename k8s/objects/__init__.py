"""Kubernetes objects as they are written: read, walked beside their schema, looked into."""
