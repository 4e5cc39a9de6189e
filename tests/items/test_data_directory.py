"""The files that ingestion leaves are those that other rooms look for."""

import shop_files
from atspeed_jax.ingest.ingest import ingest
from atspeed_jax.ingest.settings import Columns, IngestSettings, Limits
from atspeed_jax.items import data_directory as files


def test_ingestion_leaves_the_named_files_alone(tmp_path):
    log, items = shop_files.write_shop(tmp_path, users=30, items=20)
    settings = IngestSettings(Columns(time="bought"), limits=Limits(1.0, 1))
    record = ingest(str(log), str(items), tmp_path / "data", settings, lambda text: None)
    left = {path.name for path in (tmp_path / "data").iterdir()}
    assert left == {files.RECORD, files.INTERACTIONS, files.ITEMS, files.USERS, files.HISTORIES}
    assert (record["format"], tuple(record["splits"])) == (files.FORMAT, files.SPLITS)
