"""Public pretrained networks, each measured in an environment of its own."""
