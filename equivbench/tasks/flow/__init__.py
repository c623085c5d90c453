"""Flow matching on protein backbones: data, objective, networks."""
