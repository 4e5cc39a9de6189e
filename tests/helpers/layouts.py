"""Tiny data directories in the layouts that people have: 4 items with ids of 2 codes, 3 users."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

IDS = [[3, 0], [1, 2], [3, 0], [0, 1]]
TITLES = {0: "Soap", 1: "Comb", 3: "Brush, 2 pieces"}
NAMES = ["B07", "B01", "B33", "B02"]
USERS = {"41": [0, 1, 2, 3, 1], "7": [3, 0, 2], "9": [1, 3]}
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token"
# split -> (user, history, target); the histories of user 41 grow, those of user 7 are cut.
ROWS = {
    "train": [("41", [0], 1), ("41", [0, 1], 2), ("7", [3], 0)],
    "valid": [("41", [0, 1, 2], 3), ("9", [], 1)],
    "test": [("41", [0, 1, 2, 3], 1), ("7", [3, 0], 2), ("41", [2, 3, 1], 0)],
}


def tokens(item):
    return [f"<{letter}_{code}>" for letter, code in zip("ab", IDS[item], strict=True)]


def id_of(item):
    return "".join(tokens(item))


def write_index(directory, name="Beauty", *, titles=True):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.index.json").write_text(json.dumps({str(item): tokens(item) for item in range(len(IDS))}))
    if titles:
        items = {str(item): {"title": TITLES.get(item, ""), "brand": ""} for item in range(len(IDS))}
        (directory / f"{name}.item.json").write_text(json.dumps(items))
    return directory


def write_lcrec(directory, name="Beauty"):
    write_index(directory, name)
    (directory / f"{name}.inter.json").write_text(json.dumps(USERS))
    return directory


def write_lcrec_rows(directory, name="Beauty"):
    write_index(directory, name)
    for split, rows in ROWS.items():
        lines = [f"{user}\t{' '.join(map(str, history))}\t{target}" for user, history, target in rows]
        (directory / f"{name}.{split}.inter").write_text("\n".join([HEADER, *lines]) + "\n")
    return directory


def write_info(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{id_of(item)}\t{TITLES.get(item, '')}\t{item}" for item in range(len(IDS))]
    file.write_text("\n".join(lines) + "\n")
    return file


def write_minionerec(directory, name="Industrial"):
    write_info(directory / "info" / f"{name}_5_2016.txt")
    header = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid"
    for split, rows in ROWS.items():
        lines = [
            f'{user},"[]",x,"{history}",{target},"{[id_of(item) for item in history]}",{id_of(target)}'
            for user, history, target in rows
        ]
        (directory / split).mkdir(parents=True)
        (directory / split / f"{name}_5_2016.csv").write_text("\n".join([header, *lines]) + "\n")
    return directory


def write_p5(directory):
    write_index(directory, "beauty")
    lines = [" ".join(map(str, [user, *(item + 1 for item in items)])) for user, items in USERS.items()]
    (directory / "sequential_data.txt").write_text("\n".join(lines) + "\n")
    (directory / "datamaps.json").write_text(json.dumps({"item2id": {f"B{item}": str(item + 1) for item in range(4)}}))
    return directory


def write_ingested(directory, *, rows=False, sources=()):
    """The users of USERS as launch.ingest writes them, with the last two items of each held out."""
    directory.mkdir(parents=True, exist_ok=True)
    events = [
        (user, item, 1000 * time, max(0, time - len(items) + 3) if len(items) > 2 else 0)
        for user, items in enumerate(USERS.values())
        for time, item in enumerate(items)
    ]
    kinds = {"user": pa.int32(), "item": pa.int32(), "time": pa.int64(), "split": pa.int8()}
    columns = {
        name: pa.array(column, kind)
        for (name, kind), column in zip(kinds.items(), zip(*events, strict=True), strict=True)
    }
    pq.write_table(pa.table(columns), directory / "interactions.parquet")
    titles = [TITLES.get(item) for item in range(len(IDS))]
    pq.write_table(pa.table({"item": range(len(IDS)), "name": NAMES, "title": titles}), directory / "items.parquet")
    index = {"item": range(len(IDS)), "name": NAMES, "title": titles, "codes": IDS}
    pq.write_table(pa.table(index), directory / "index.parquet")
    record = {
        "format": 1,
        "name": "shop",
        "users": len(USERS),
        "items": len(IDS),
        "interactions": len(events),
        "rows": rows,
    }
    record["sources"] = [{"file": str(file.resolve()), "bytes": file.stat().st_size} for file in sources]
    (directory / "ingest.json").write_text(json.dumps(record))
    return directory
