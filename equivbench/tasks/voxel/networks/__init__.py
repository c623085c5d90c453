"""U-Nets on voxel grids: one skeleton, three kinds of layers."""
