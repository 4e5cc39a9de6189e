"""Generative recommendation with speculative beam search, in JAX."""
