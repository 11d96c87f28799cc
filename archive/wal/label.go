package wal

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrLabel is matched by errors about the content of a .backup file.
var ErrLabel = errors.New("not the backup label file of this name")

// CheckBackupLabel tells whether the content of a .backup file is that of its
// name: its first line says where the backup started (xlog.c, where
// pg_backup_stop writes it). The error matches ErrLabel.
func CheckBackupLabel(name Name, text []byte) error {
	if err := checkBackupLabel(name, text); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrLabel, err)
	}
	return nil
}

func checkBackupLabel(name Name, text []byte) error {
	if name.kind != KindBackup {
		return fmt.Errorf("a %s has no label", name.kind)
	}
	start, segment, err := BackupStart(text)
	if err != nil {
		return err
	}
	if segment != name.Segment() {
		return fmt.Errorf("the backup started in %s", segment)
	}
	// The offset in the segment shows in the low bits, whatever the segment's size.
	low := uint32(smallestSegment) - 1
	if uint32(start>>32) != name.log || uint32(start)&low != name.offset&low {
		return fmt.Errorf("the backup started at %s", start)
	}
	return nil
}

// BackupStart reads the first line of a backup label, where the backup started and
// in which segment: "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)".
func BackupStart(text []byte) (LSN, Name, error) {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	rest, found := strings.CutPrefix(string(first), "START WAL LOCATION: ")
	position, file, ok := strings.Cut(strings.TrimRight(rest, "\r"), " (file ")
	file, closed := strings.CutSuffix(file, ")")
	if !found || !ok || !closed {
		return 0, Name{}, fmt.Errorf("it begins with %.60q, not with where the backup started", first)
	}
	start, err := ParseLSN(position)
	if err != nil {
		return 0, Name{}, err
	}
	segment, err := ParseName(file)
	return start, segment, err
}
