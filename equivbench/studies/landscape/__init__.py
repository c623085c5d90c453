"""The loss landscape of both parts of the error around trained weights."""
