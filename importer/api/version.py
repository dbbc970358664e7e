"""The version of this program, told to servers and in receipts. pyproject.toml says the same; a test compares them."""

VERSION = "0.1.0"
"""Written down here because reading it from the metadata of the installed package takes 15 ms."""
