"""The version of handset, which is stored with every result."""

VERSION = "0.1.0"
