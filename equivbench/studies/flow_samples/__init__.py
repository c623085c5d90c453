"""The backbones that a trained flow model draws."""
