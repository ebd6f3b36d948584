"""Has a log witnessed by aics-witness: `witness.py LOG WORK`.

LOG is a folder as `aics.py` takes it; the witness keeps its state in WORK. It must cosign the earlier
checkpoint, then the later one, and refuse both a history without proof and a checkpoint that the log
did not sign. The cosigned checkpoint and both verifier keys then stand in WORK/cosigned, with
everything else of LOG, for any checker that knows cosignatures.
"""

import base64
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from aics import demand, open_checkpoint, read_keys
from aics_tlog import FileSystemTileReader, VerifiedTileReader, consistency_proof_from_tiles

NAME = "witness.example/checkers"
STARTS_WITHIN_S = 30


def aics_witness(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aics_witness", *arguments]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def submit(url: str, old: int, proof: list[bytes], checkpoint: bytes) -> tuple[int, bytes]:
    lines = [f"old {old}", *(base64.b64encode(h).decode() for h in proof), "", ""]
    body = "\n".join(lines).encode() + checkpoint
    try:
        with urllib.request.urlopen(f"{url}/add-checkpoint", data=body, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def await_witness(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("aics-witness did not start")


def try_witness(url: str, log: Path) -> bytes:
    key, _ = read_keys(log)
    first, last = (log / "old").read_bytes(), (log / "checkpoint").read_bytes()
    old, new = open_checkpoint(first, key, []), open_checkpoint(last, key, [])
    demand(old.size < new.size, "both checkpoints are of one size")
    reader = VerifiedTileReader(FileSystemTileReader(log), new.size, new.root)
    proof = consistency_proof_from_tiles(reader, old.size, new.size)

    forged = first.replace(f"\n{old.size}\n".encode(), f"\n{old.size + 1}\n".encode(), 1)
    answers = {
        "not signed by the log": (submit(url, 0, [], forged)[0], 403),
        "the earlier checkpoint": (submit(url, 0, [], first)[0], 200),
        "another old size": (submit(url, old.size - 1, proof, last)[0], 409),
        "no proof": (submit(url, old.size, [], last)[0], 422),
        "a damaged proof": (submit(url, old.size, [bytes(32), *proof[1:]], last)[0], 422),
    }
    status, cosignature = submit(url, old.size, proof, last)
    answers["the later checkpoint"] = (status, 200)
    answers["back again"] = (submit(url, 0, [], first)[0], 409)
    for what, (found, expected) in answers.items():
        demand(found == expected, f"{what}: {found}, not {expected}")
    return cosignature


def main() -> None:
    log, work = Path(sys.argv[1]), Path(sys.argv[2])
    key, _ = read_keys(log)
    config = ["--config", str(work / "witness.json")]
    url = f"http://127.0.0.1:{free_port()}"
    listen = ["--listen", url.removeprefix("http://")]
    made = subprocess.run(
        aics_witness("init", *config, "--name", NAME, *listen), check=True, capture_output=True, text=True
    )
    vkey = made.stdout.split()[-1]
    own = (log / "vkey").read_text().splitlines()[0]
    subprocess.run(
        aics_witness("add-log", *config, "--origin", key.name, "--vkey", own),
        check=True,
        capture_output=True,
    )
    with open(work / "witness.log", "wb") as output:
        process = subprocess.Popen(aics_witness("serve", *config), stdout=output, stderr=output)
    try:
        await_witness(url, process)
        cosignature = try_witness(url, log)
    finally:
        process.terminate()
        process.wait(timeout=30)
    cosigned = work / "cosigned"
    shutil.copytree(log, cosigned)
    with open(cosigned / "checkpoint", "ab") as checkpoint:
        checkpoint.write(cosignature)
    with open(cosigned / "vkey", "a") as keys:
        keys.write(f"{vkey}\n")
    print("aics-witness cosigned the later checkpoint, and refused five that it must refuse")


if __name__ == "__main__":
    main()
