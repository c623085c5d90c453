"""The board as one self-contained HTML page: tables, curves, gaps, rooflines and where every number
comes from."""
