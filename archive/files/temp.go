package files

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"
)

// TempPrefix begins every temporary name. Nothing with this prefix is part of
// an archive.
const TempPrefix = ".tmp-"

// Writer says who makes temporary files: enough to prove, later and on the same
// host, that the one who made a file is dead.
type Writer struct {
	Host         string // letters, digits and dots; no hyphen
	Boot         string // changes with every boot of the host
	PIDNamespace string // a PID means something only within it
	PID          int
	// Alive tells whether a process of this host, boot and PID namespace
	// lives. In doubt it says yes.
	Alive func(pid int) bool
}

// NewTempName returns a name that nobody uses or used: TempPrefix, then host,
// boot, PID namespace, PID and a random part, separated by hyphens.
func (w Writer) NewTempName() string {
	var random [8]byte
	rand.Read(random[:])
	return fmt.Sprintf("%s%s-%s-%s-%d-%s", TempPrefix, w.Host, w.Boot, w.PIDNamespace, w.PID, hex.EncodeToString(random[:]))
}

// settled is how long a temporary file must lie untouched before another boot of
// its host counts as proof. Two hosts may carry one name and one machine id, as
// copies of one image do; no put pauses that long.
const settled = time.Hour

// provesDead tells whether the maker of a temporary file can no longer be
// writing it: it ran on this host, in our PID namespace where its process is
// gone, or before the last boot.
func (w Writer) provesDead(e fs.DirEntry, now time.Time) bool {
	part := strings.Split(strings.TrimPrefix(e.Name(), TempPrefix), "-")
	if len(part) != 5 || part[0] != w.Host || w.Host == "" || w.Boot == "" {
		return false
	}
	if part[1] != w.Boot {
		return olderThan(e, now.Add(-settled))
	}
	var pid int
	if _, err := fmt.Sscanf(part[3], "%d", &pid); err != nil || pid <= 0 {
		return false
	}
	return part[2] == w.PIDNamespace && w.PIDNamespace != "" && !w.Alive(pid)
}

// Sweep removes the temporary files in dir whose makers are dead with proof,
// and, unless it is zero, those last written before cutoff, whoever made them.
// It returns the names that it removed.
func (s *Store) Sweep(ctx context.Context, dir string, cutoff time.Time) ([]string, error) {
	entries, err := s.fs.ReadDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), TempPrefix) || e.IsDir() {
			continue
		}
		if !s.writer.provesDead(e, time.Now()) && !olderThan(e, cutoff) {
			continue
		}
		name := path.Join(dir, e.Name())
		err := s.fs.Remove(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else sweeps here too
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}

func olderThan(e fs.DirEntry, cutoff time.Time) bool {
	if cutoff.IsZero() {
		return false
	}
	info, err := e.Info()
	return err == nil && info.ModTime().Before(cutoff)
}
