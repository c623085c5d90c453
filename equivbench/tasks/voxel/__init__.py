"""Voxel denoising: molecules as grids of atomic densities with normal noise, and the grid that
takes the noise away."""
