"""What is wrong with data or settings that ids are made from."""


class IdsError(ValueError):
    """Ids that cannot be made; the message names the item or setting and the remedy."""
