"""Checks logs with aics-tlog.

Each line of standard input names a folder with `vkey` (verifier keys, one a line, the log's own
first), `checkpoint`, `old` (an earlier checkpoint), `tile/...` and `proofs/*.tlog-proof`. For each one
line comes back: `ok SIZE`, or `bad` and why.
"""

import sys
from pathlib import Path

from aics_tlog import (
    Checkpoint,
    FileSystemTileReader,
    VerifiedTileReader,
    VKey,
    audit_tiles,
    consistency_proof_from_tiles,
    inclusion_proof_from_tiles,
    parse_checkpoint,
    parse_note,
    parse_vkey,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
)
from aics_tlog.note import b64_decode

TITLE = "c2sp.org/tlog-proof@v1"


class Bad(Exception):
    """Something does not agree."""


def demand(holds: bool, why: str) -> None:
    if not holds:
        raise Bad(why)


def open_checkpoint(note: bytes, log: VKey, witnesses: list[VKey]) -> Checkpoint:
    parsed = parse_note(note)
    result = verify_checkpoint(parsed, log, witnesses, quorum=len(witnesses), expected_origin=log.name)
    demand(result.ok, str(result.error))
    return parse_checkpoint(parsed.text)


def check_proof(text: str, log: VKey, reader: VerifiedTileReader) -> Checkpoint:
    head, checkpoint = text.split("\n\n", 1)
    title, index, *hashes = head.split("\n")
    demand(title == TITLE, "not a tlog-proof")
    number = int(index.removeprefix("index "))
    demand(index == f"index {number}", f"no index in {index!r}")
    proven = open_checkpoint(checkpoint.encode(), log, [])
    demand(number < proven.size <= reader.size, f"entry {number} of {proven.size}")
    leaf = reader.leaf_hash(number)
    siblings = [b64_decode(line) for line in hashes]
    demand(
        verify_inclusion(leaf, number, proven.size, siblings, proven.root),
        f"entry {number} is not proven",
    )
    return proven


def read_keys(folder: Path) -> tuple[VKey, list[VKey]]:
    """The log's key and its witnesses'; the library knows no ML-DSA-44 (type 6)."""
    lines = (folder / "vkey").read_text().splitlines()
    log, *others = [parse_vkey(line) for line in lines]
    return log, [key for key in others if key.key_type == 4]


def check(folder: Path) -> int:
    log, witnesses = read_keys(folder)
    checkpoint = open_checkpoint((folder / "checkpoint").read_bytes(), log, witnesses)
    old = open_checkpoint((folder / "old").read_bytes(), log, [])
    files = FileSystemTileReader(folder)
    audit_tiles(files, checkpoint.size, checkpoint.root)
    reader = VerifiedTileReader(files, checkpoint.size, checkpoint.root)
    earlier = [old]
    for path in sorted((folder / "proofs").glob("*.tlog-proof")):
        earlier.append(check_proof(path.read_bytes().decode(), log, reader))
    for known in earlier:
        demand(known.size <= checkpoint.size, f"{known.size} entries before, {checkpoint.size} now")
        proof = consistency_proof_from_tiles(reader, known.size, checkpoint.size)
        demand(
            verify_consistency(known.size, checkpoint.size, known.root, checkpoint.root, proof),
            f"the checkpoint of {known.size} entries is of another history",
        )
    for index in {0, checkpoint.size // 2, checkpoint.size - 1}:
        proof = inclusion_proof_from_tiles(reader, index, checkpoint.size)
        leaf = reader.leaf_hash(index)
        demand(
            verify_inclusion(leaf, index, checkpoint.size, proof, checkpoint.root),
            f"entry {index} is not proven",
        )
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
