package main

import (
	"crypto/ed25519"
	"crypto/mldsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// What sumdb/note does not know: the key types of c2sp.org/tlog-cosignature.
const (
	typeEd25519     = 1
	typeCosignature = 4
	typeMLDSA44     = 6
	mldsaLabel      = "subtree/v1\n\x00"
)

// readKeys reads verifier keys, one a line.
func readKeys(file string) ([]note.Verifier, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var keys []note.Verifier
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("verifier key: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseKey(text string) (note.Verifier, error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 || parts[0] == "" {
		return nil, errors.New("not NAME+ID+KEY")
	}
	bytes, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(bytes) == 0 {
		return nil, errors.New("no key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), bytes...))
	id := binary.BigEndian.Uint32(sum[:])
	if said, err := strconv.ParseUint(parts[1], 16, 32); err != nil || uint32(said) != id ||
		fmt.Sprintf("%08x", said) != parts[1] {
		return nil, errors.New("its id is another key's")
	}
	key := cosigner{parts[0], id, nil}
	switch public := bytes[1:]; bytes[0] {
	case typeEd25519:
		return note.NewVerifier(text)
	case typeCosignature:
		if len(public) != ed25519.PublicKeySize {
			return nil, errors.New("not an Ed25519 key")
		}
		key.verify = func(body, signature []byte) bool {
			time, signature, ok := cutTime(signature)
			signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, body)
			return ok && ed25519.Verify(ed25519.PublicKey(public), []byte(signed), signature)
		}
	case typeMLDSA44:
		parsed, err := mldsa.NewPublicKey(mldsa.MLDSA44(), public)
		if err != nil {
			return nil, err
		}
		key.verify = func(body, signature []byte) bool {
			time, signature, ok := cutTime(signature)
			signed, err := subtree(parts[0], time, string(body))
			return ok && err == nil && mldsa.Verify(parsed, signed, signature, nil) == nil
		}
	default:
		return nil, fmt.Errorf("keys of type %d are not known here", bytes[0])
	}
	return key, nil
}

// cutTime takes the time of eight bytes off a cosignature.
func cutTime(signature []byte) (uint64, []byte, bool) {
	if len(signature) < 8 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(signature), signature[8:], true
}

// subtree is what an ML-DSA-44 cosignature of a whole tree signs.
func subtree(cosigner string, time uint64, body string) ([]byte, error) {
	lines := strings.Split(body, "\n")
	if len(lines) < 4 || len(cosigner) > 255 || len(lines[0]) > 255 {
		return nil, errors.New("not a checkpoint")
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return nil, err
	}
	hash, err := parseHash(lines[2])
	if err != nil {
		return nil, err
	}
	out := append([]byte(mldsaLabel), byte(len(cosigner)))
	out = append(out, cosigner...)
	out = binary.BigEndian.AppendUint64(out, time)
	out = append(append(out, byte(len(lines[0]))), lines[0]...)
	out = binary.BigEndian.AppendUint64(out, 0)
	out = binary.BigEndian.AppendUint64(out, size)
	return append(out, hash[:]...), nil
}

// cosigner is a note.Verifier of a type that sumdb/note does not know.
type cosigner struct {
	name   string
	id     uint32
	verify func(body, signature []byte) bool
}

func (c cosigner) Name() string                       { return c.name }
func (c cosigner) KeyHash() uint32                    { return c.id }
func (c cosigner) Verify(body, signature []byte) bool { return c.verify(body, signature) }
