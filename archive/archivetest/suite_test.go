package archivetest_test

import (
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
)

var _ archive.Store = (*files.Store)(nil)

func kinds() map[string]func(t *testing.T) files.FS {
	return map[string]func(t *testing.T) files.FS{
		"memory": func(*testing.T) files.FS { return archivetest.NewMemory() },
		"local":  func(t *testing.T) files.FS { return local.New(t.TempDir()) },
	}
}

func TestStores(t *testing.T) {
	for name, newFS := range kinds() {
		t.Run(name, func(t *testing.T) {
			archivetest.TestStore(t, archivetest.Kind{Open: func(t *testing.T) archive.Store {
				return files.NewStore(newFS(t), local.Writer())
			}})
		})
		t.Run(name+" append-only", func(t *testing.T) {
			archivetest.TestStore(t, archivetest.Kind{AppendOnly: true, Open: func(t *testing.T) archive.Store {
				return files.NewStore(archivetest.AppendOnly{FS: newFS(t)}, local.Writer())
			}})
		})
	}
}
