"""A log and an item file as a shop would export them: names, dates and titles of its own."""

import csv
import datetime

import numpy as np

WORDS = {
    "shampoo": "mild foam wash for dry hair",
    "comb": "wooden teeth for thick curls",
    "lipstick": "matte red colour that stays",
    "cream": "night care with oil for the face",
    "nail file": "glass edge for strong nails",
}
COLUMNS = ("customer", "product", "stars", "bought")


def write_shop(directory, *, users=120, items=60, seed=0):
    """Writes log.csv and items.csv; customers mostly stay with one kind of product.

    Returns:
      (log.csv, items.csv).
    """
    rng = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    kinds = list(WORDS)
    kind_of = rng.integers(len(kinds), size=items)
    names = [f"B{number:03d}" for number in rng.permutation(items)]
    with (directory / "items.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("product", "title", "text", "category"))
        for name, kind in zip(names, kind_of, strict=True):
            writer.writerow((name, f"{kinds[kind]}, no. {name}", WORDS[kinds[kind]], kinds[kind]))
    begin = datetime.datetime(2025, 1, 1)
    with (directory / "log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for user in range(users):
            liked, day = int(rng.integers(len(kinds))), float(rng.uniform(0, 60))
            for _ in range(int(rng.integers(6, 14))):
                alike = np.flatnonzero(kind_of == liked)
                item = int(rng.choice(alike)) if len(alike) and rng.random() < 0.9 else int(rng.integers(items))
                day += float(rng.exponential(20))
                when = begin + datetime.timedelta(days=day, seconds=user)
                writer.writerow(
                    (f"customer {user}", names[item], int(rng.integers(3, 6)), when.isoformat(" ", "seconds"))
                )
                liked = (liked + 1) % len(kinds) if rng.random() < 0.1 else liked
    return directory / "log.csv", directory / "items.csv"
