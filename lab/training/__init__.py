"""Training: pairs, recipes and one trainer for heads, adapters and whole models."""
