"""Ids for items: from texts, vectors and interactions to codes, and to frozen codebooks
that give new items codes as well.
"""
