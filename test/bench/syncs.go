package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// synced is a call in a trace that made something durable, where it came back.
var synced = regexp.MustCompile(`(?m)\b(fsync|fdatasync|syncfs|sync|sync_file_range|msync)\b.* = 0$`)

func tracing(to string) []string {
	return []string{"strace", "-f", "-qq", "-o", to, "-e", "trace=fsync,fdatasync,syncfs,sync,sync_file_range,msync"}
}

// countSyncs stores one segment under strace on both sides: that takes much
// longer, so it is never measured.
func (b *bench) countSyncs(w way) (string, error) {
	there, here := b.path(fmt.Sprintf("there%d", b.fars)), b.path(fmt.Sprintf("here%d", b.fars))
	for _, path := range []string{there, here} {
		if err := b.file(path, ""); err != nil {
			return "", err
		}
	}
	f, err := b.openFar(w, 0, tracing(there)...)
	if err != nil {
		return "", err
	}
	defer f.close()
	before, err := countIn(there)
	if err != nil {
		return "", err
	}
	cmd := w.put(f, b.segments[0])
	traced := *cmd
	if traced.Path, err = exec.LookPath("strace"); err != nil {
		return "", err
	}
	traced.Args = slices.Concat(tracing(here), cmd.Args)
	if err := silent(&traced); err != nil {
		return "", err
	}
	if !w.warm {
		if err := f.waitIdle(); err != nil {
			return "", err
		}
	}
	nHere, err := countIn(here)
	if err != nil {
		return "", err
	}
	after, err := countIn(there)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d / %d", nHere, after-before), w.stored(f, b.segments[0])
}

func countIn(trace string) (int, error) {
	text, err := os.ReadFile(filepath.Clean(trace))
	return len(synced.FindAll(text, -1)), err
}
