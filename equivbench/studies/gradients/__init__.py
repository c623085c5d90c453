"""Which part of the error drives training: gradients of both parts along a run."""
