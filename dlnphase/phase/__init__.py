"""Distances from an initialisation to minima and saddles, their scaling exponents and the critical γ."""
