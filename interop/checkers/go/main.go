// Checks logs with the packages of Go's checksum database, sumdb/note and sumdb/tlog.
//
// Each line of standard input names a folder with `vkey` (verifier keys, one a line, the log's own
// first), `checkpoint`, `old` (an earlier checkpoint), `tile/...` and `proofs/*.tlog-proof`. For each
// one line comes back: `ok SIZE`, or `bad` and why.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	proofTitle = "c2sp.org/tlog-proof@v1"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		size, err := check(lines.Text())
		if err != nil {
			fmt.Println("bad", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok", size)
		}
	}
}

// check reads everything in the folder.
func check(folder string) (int64, error) {
	keys, err := readKeys(filepath.Join(folder, "vkey"))
	if err != nil {
		return 0, err
	}
	tree, err := openFile(filepath.Join(folder, "checkpoint"), keys, keys)
	if err != nil {
		return 0, err
	}
	old, err := openFile(filepath.Join(folder, "old"), keys, keys[:1])
	if err != nil {
		return 0, err
	}
	// It gives no hash that it has not authenticated up to the checkpoint's root.
	reader := tlog.TileHashReader(tree, folderTiles(folder))
	if err := checkEntries(folder, tree, reader); err != nil {
		return 0, err
	}
	if err := checkConsistency(tree, old, reader); err != nil {
		return 0, err
	}
	return tree.N, checkProofs(folder, keys, tree, reader)
}

// checkEntries compares every entry with its authenticated leaf, and proves three of them.
func checkEntries(folder string, tree tlog.Tree, reader tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += tileWidth {
		tile := tlog.Tile{H: tileHeight, L: -1, N: first / tileWidth, W: int(min(tree.N-first, tileWidth))}
		entries, err := readBundle(filepath.Join(folder, path(tile)), tile.W)
		if err != nil {
			return err
		}
		hashes, err := leaves(reader, first, tile.W)
		if err != nil {
			return err
		}
		for i, entry := range entries {
			if tlog.RecordHash(entry) != hashes[i] {
				return fmt.Errorf("%s: entry %d does not hash to its leaf", path(tile), first+int64(i))
			}
		}
	}
	for _, index := range []int64{0, tree.N / 2, tree.N - 1} {
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		if err != nil {
			return err
		}
		leaf, err := leaves(reader, index, 1)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return nil
}

func checkConsistency(tree, old tlog.Tree, reader tlog.HashReader) error {
	if old.N > tree.N {
		return fmt.Errorf("the earlier checkpoint has %d entries, the later %d", old.N, tree.N)
	}
	proof, err := tlog.ProveTree(tree.N, old.N, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return fmt.Errorf("from %d to %d entries: %w", old.N, tree.N, err)
	}
	return nil
}

func checkProofs(folder string, keys []note.Verifier, tree tlog.Tree, reader tlog.HashReader) error {
	files, err := filepath.Glob(filepath.Join(folder, "proofs", "*.tlog-proof"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := checkProof(file, keys, tree, reader); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

// checkProof checks the hashes of a tlog-proof against its own checkpoint and the log's leaf.
func checkProof(file string, keys []note.Verifier, tree tlog.Tree, reader tlog.HashReader) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, checkpoint, found := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != proofTitle {
		return errors.New("not a tlog-proof")
	}
	proven, err := open([]byte(checkpoint), keys, keys[:1])
	if err != nil {
		return err
	}
	number, found := strings.CutPrefix(lines[1], "index ")
	index, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !found || strconv.FormatInt(index, 10) != number || index < 0 {
		return fmt.Errorf("no index in %q", lines[1])
	}
	if index >= proven.N || proven.N > tree.N {
		return fmt.Errorf("entry %d of %d, in a log of %d", index, proven.N, tree.N)
	}
	var proof tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := parseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	leaf, err := leaves(reader, index, 1)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(proof, proven.N, proven.Hash, index, leaf[0]); err != nil {
		return err
	}
	return checkConsistency(tree, proven, reader)
}

func leaves(reader tlog.HashReader, first int64, count int) ([]tlog.Hash, error) {
	indexes := make([]int64, count)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, first+int64(i))
	}
	return reader.ReadHashes(indexes)
}

// openFile opens a checkpoint under the known keys; each of the demanded ones must have signed it.
func openFile(file string, known, demanded []note.Verifier) (tlog.Tree, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return tlog.Tree{}, err
	}
	tree, err := open(text, known, demanded)
	if err != nil {
		return tree, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return tree, nil
}

func open(text []byte, known, demanded []note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	n, err := note.Open(text, note.VerifierList(known...))
	if err != nil {
		return tree, err
	}
	signed := map[string]bool{}
	for _, signature := range n.Sigs {
		// The package takes several spellings of one signature.
		if _, err := base64.StdEncoding.Strict().DecodeString(signature.Base64); err != nil {
			return tree, fmt.Errorf("signature of %s: %w", signature.Name, err)
		}
		signed[fmt.Sprint(signature.Name, signature.Hash)] = true
	}
	for _, key := range demanded {
		if !signed[fmt.Sprint(key.Name(), key.KeyHash())] {
			return tree, fmt.Errorf("not signed by %s", key.Name())
		}
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != known[0].Name() {
		return tree, errors.New("not a checkpoint of this log")
	}
	tree.N, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || tree.N < 1 || strconv.FormatInt(tree.N, 10) != lines[1] {
		return tree, fmt.Errorf("%q is no size", lines[1])
	}
	tree.Hash, err = parseHash(lines[2])
	return tree, err
}

func parseHash(text string) (tlog.Hash, error) {
	var hash tlog.Hash
	bytes, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || copy(hash[:], bytes) != len(hash) || len(bytes) != len(hash) {
		return hash, fmt.Errorf("%q is no hash", text)
	}
	return hash, nil
}

// readBundle reads the entries of a bundle, each after its length of two bytes.
func readBundle(file string, count int) ([][]byte, error) {
	bytes, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	entries := make([][]byte, 0, count)
	for len(bytes) > 0 {
		if len(bytes) < 2 || len(bytes)-2 < int(binary.BigEndian.Uint16(bytes)) {
			return nil, fmt.Errorf("%s ends in an entry", file)
		}
		end := 2 + int(binary.BigEndian.Uint16(bytes))
		entries = append(entries, bytes[2:end])
		bytes = bytes[end:]
	}
	if len(entries) != count {
		return nil, fmt.Errorf("%s holds %d entries, not %d", file, len(entries), count)
	}
	return entries, nil
}

// folderTiles reads tiles from a folder; what they are worth, tlog.TileHashReader decides.
type folderTiles string

func (f folderTiles) Height() int { return tileHeight }

func (f folderTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, 0, len(tiles))
	for _, tile := range tiles {
		bytes, err := os.ReadFile(filepath.Join(string(f), path(tile)))
		if err != nil {
			return nil, err
		}
		all = append(all, bytes)
	}
	return all, nil
}

func (f folderTiles) SaveTiles([]tlog.Tile, [][]byte) {}

// path is a tile's path in C2SP, which says no height and calls entries by their name.
func path(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}
