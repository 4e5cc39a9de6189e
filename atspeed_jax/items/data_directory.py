"""Files in the directory of a raw log.

launch.ingest writes it, launch.build_ids adds the ids, and a run reads it.
"""

RECORD = "ingest.json"  # what was read and how it was filtered and split
FORMAT = 1  # of the record and of the files
INTERACTIONS = "interactions.parquet"  # user, item, time, split; sorted by user, time and item
ITEMS = "items.parquet"  # row n is item n
USERS = "users.parquet"  # row n is user n
HISTORIES = "histories.parquet"  # an input of launch.recommend
INDEX = "index.parquet"  # the ids, of launch.build_ids
SPLITS = ("train", "valid", "test")  # 0, 1 and 2 in the column split
