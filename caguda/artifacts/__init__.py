"""What the pipeline leaves on disk: one module per format, with its writer, its reader and its check (docs/formats.md)."""
