"""Looking at pseudo-labels: pictures, tables for a terminal, and the page."""
