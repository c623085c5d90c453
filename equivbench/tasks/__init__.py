"""Tasks: data, objective and symmetry types of every tensor, one folder each."""
