"""Whether a trained flow model tells left from right."""
