"""Models, decoders, lists and figures of a run, as other programs read them."""
