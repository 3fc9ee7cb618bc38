"""The versions of the package and of the method. A new METHOD_VERSION makes every artifact stale (CONTRIBUTING.md)."""

VERSION = "0.1.0"
METHOD_VERSION = "4"
