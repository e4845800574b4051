"""Readers and writers of document files; one module a format."""
