"""The formats on disk (docs/formats.md), and what all artifacts share: atomic writing, provenance, checks."""
