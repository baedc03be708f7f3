"""Finding passages: dense, sparse, fused."""
