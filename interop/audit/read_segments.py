"""Reads every segment with pyarrow, that is with the C++ Parquet library, and counts what is in them.

Usage: read_segments.py SCRIPT, which is what `chancery audit sql` gives to DuckDB: keys and files.
Prints the number of rows, and of tokens whose digest and `jti` could be read.
"""

import base64
import re
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.parquet.encryption import create_decryption_properties

script = Path(sys.argv[1]).read_text()
keys = dict(re.findall(r"add_parquet_key\('(k\d+)', '([^']+)'\)", script))
files = re.findall(r"read_parquet\('([^']+)', encryption_config = \{footer_key: '(k\d+)'\}", script)
assert files, "no segments"
rows = tokens = 0
for path, key in files:
    properties = create_decryption_properties(footer_key=base64.b64decode(keys[key]))
    table = pq.ParquetFile(path, decryption_properties=properties).read()
    rows += table.num_rows
    both = pc.and_(pc.is_valid(table["digest"]), pc.is_valid(table["jti"]))
    tokens += pc.sum(both).as_py()
print(rows, tokens)
