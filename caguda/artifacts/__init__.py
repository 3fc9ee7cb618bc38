"""The artifacts on disk: one module per format, with its writer, reader and check (docs/formats.md)."""
