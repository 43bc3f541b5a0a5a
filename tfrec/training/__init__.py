"""Losses, optimisers, strategies, the loop, checkpoints and monitoring."""
