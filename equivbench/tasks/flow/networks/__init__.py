"""The networks of the flow-matching task: one transformer trunk, three ways to handle rotations."""
