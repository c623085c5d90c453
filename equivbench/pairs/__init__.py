"""The catalogue of pairs: which two arms are compared, and what is matched between them."""
