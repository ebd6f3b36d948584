"""Checks logs with tlog-scales.

Each line of standard input names a folder with `vkey` (verifier keys, one a line, the log's own
first), `checkpoint`, `old` (an earlier checkpoint), `tile/...` and `proofs/*.tlog-proof`. For each one
line comes back: `ok SIZE`, or `bad` and why.
"""

import base64
import sys
from pathlib import Path

from tlog_scales import tiles
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tlog import Checkpoint, InclusionProof
from tlog_scales.utils import sha256

TITLE = "c2sp.org/tlog-proof@v1"


class Bad(Exception):
    """Something does not agree."""


def demand(holds: bool, why: str) -> None:
    if not holds:
        raise Bad(why)


def open_checkpoint(text: str, keys: list[Vkey], demanded: list[Vkey]) -> Checkpoint:
    checkpoint = Checkpoint.from_text(text)
    # The library reads several spellings of one checkpoint.
    demand(checkpoint.serialize() == text, "the checkpoint is spelt in another way")
    demand(checkpoint.origin == keys[0].name, f"a checkpoint of {checkpoint.origin}")
    for key in keys:
        if key in demanded or any(key.match(s) for s in checkpoint.signatures):
            checkpoint.verify(key)
    return checkpoint


def check_tiles(reader: TilesReader, size: int) -> list[bytes]:
    """Every full tile hashes to its place in the tile above, every entry to its leaf."""
    tops: list[bytes] = []
    level = 0
    while tiles.level_entries(size, level):
        full, partial = tiles.level_tiles(size, level)
        hashes: list[bytes] = []
        for index in range(full + (partial > 0)):
            width = partial if index == full else 0
            tile = reader._get_tile(level, index, width)
            demand(tile is not None, f"{tiles.tile_path(level, index, width)} is not there")
            demand(tile.length == (width or 256), f"{tiles.tile_path(level, index, width)} has a wrong length")
            hashes += tile.entries
        if level == 0:
            leaves = hashes
        else:
            demand(tops == hashes, f"a tile of level {level - 1} is not what level {level} says")
        tops = [fold(hashes[at : at + 256]) for at in range(0, full * 256, 256)]
        level += 1
    for index in range((size + 255) // 256):
        width = size % 256 if index == size // 256 else 0
        bundle = reader._get_tile(-1, index, width)
        demand(bundle is not None, f"{tiles.tile_path(-1, index, width)} is not there")
        found = [tiles.leaf_hash(entry) for entry in bundle.entries]
        demand(found == leaves[index * 256 : index * 256 + (width or 256)], f"{tiles.tile_path(-1, index, width)}: wrong entries")
    return leaves


def fold(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [sha256(b"\x01" + left + right) for left, right in zip(hashes[::2], hashes[1::2])]
    return hashes[0]


def check_proof(text: str, keys: list[Vkey], leaves: list[bytes]) -> Checkpoint:
    head, checkpoint = text.split("\n\n", 1)
    title, index, *hashes = head.split("\n")
    demand(title == TITLE, "not a tlog-proof")
    number = int(index.removeprefix("index "))
    demand(index == f"index {number}", f"no index in {index!r}")
    siblings = [base64.b64decode(line, validate=True) for line in hashes]
    demand(hashes == [base64.b64encode(h).decode() for h in siblings], "a hash is spelt in another way")
    proven = open_checkpoint(checkpoint, keys, keys[:1])
    demand(0 <= number < proven.size <= len(leaves), f"entry {number} of {proven.size}")
    InclusionProof(number, proven.size, siblings).check(leaves[number], proven.root_hash)
    return proven


def check(folder: Path) -> int:
    keys = [Vkey.from_string(line) for line in (folder / "vkey").read_text().splitlines()]
    for key in keys:
        demand(Vkey(key.name, None, key.sig_type, key.pubkey).key_id == key.key_id, "a key's id is wrong")
    checkpoint = open_checkpoint((folder / "checkpoint").read_bytes().decode(), keys, keys)
    old = open_checkpoint((folder / "old").read_bytes().decode(), keys, keys[:1])
    reader = TilesReader(LocalBackend(folder))
    reader.set_size(checkpoint.size)
    demand(reader.calculate_root_hash() == checkpoint.root_hash, "the tiles hash to another root")
    leaves = check_tiles(reader, checkpoint.size)
    earlier = [old]
    for path in sorted((folder / "proofs").glob("*.tlog-proof")):
        earlier.append(check_proof(path.read_bytes().decode(), keys, leaves))
    for known in earlier:
        demand(known.size <= checkpoint.size, f"{known.size} entries before, {checkpoint.size} now")
        proof = reader.get_consistency_proof(known.size, checkpoint.size)
        proof.check(known.root_hash, checkpoint.root_hash)
    for index in {0, checkpoint.size // 2, checkpoint.size - 1}:
        proof = reader.get_inclusion_proof(index, checkpoint.size)
        proof.check(leaves[index], checkpoint.root_hash)
    return checkpoint.size


def main() -> None:
    for line in sys.stdin:
        try:
            print("ok", check(Path(line.rstrip("\n"))), flush=True)
        # Whatever the library raises on damaged bytes is its way of saying so.
        except Exception as error:
            print("bad", type(error).__name__, " ".join(str(error).split()), flush=True)


if __name__ == "__main__":
    main()
