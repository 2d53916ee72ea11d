"""Survival: any node may die, stop, come back or join, and the iteration is still exact."""
