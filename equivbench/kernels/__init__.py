"""The operations that equivariant networks are made of: named cases, backends that provide them,
and timing that checks."""
