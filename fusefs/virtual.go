package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// virtual is the part of the tree that is always there.
type virtual struct {
	identity []byte // .pitr/identity.json
	archive  []byte // wal/archive.json; nil if there is none
}

// made is one name of it.
type made struct {
	parent uint64
	name   string
	id     uint64
	mode   uint32
}

func (v virtual) all() []made {
	all := []made{
		{rootNode, "wal", walNode, dirMode},
		{rootNode, "backup", backupNode, dirMode},
		{rootNode, ".pitr", pitrNode, dirMode},
		{pitrNode, "identity.json", identityNode, fileMode},
		{pitrNode, "health.json", healthNode, fileMode},
		{pitrNode, "metrics", metricsNode, fileMode},
		{walNode, hiddenAside, asideNode, dirMode},
	}
	if v.archive != nil {
		all = append(all, made{walNode, "archive.json", archiveNode, fileMode})
	}
	return all
}

// hiddenAside is where a flat archive has what was set aside. Whoever asks for it by
// its name finds it; it is not listed, so that no program copies it.
const hiddenAside = "quarantine"

func (v virtual) child(parent uint64, name string) (id uint64, ok bool) {
	for _, m := range v.all() {
		if m.parent == parent && m.name == name {
			return m.id, true
		}
	}
	return 0, false
}

// entries are the names in a directory, with those that every one has.
func (v virtual) entries(dir uint64) []fuse.DirEntry {
	list := []fuse.DirEntry{{Name: ".", Mode: dirMode, Ino: dir}, {Name: "..", Mode: dirMode, Ino: rootNode}}
	for _, m := range v.all() {
		if m.parent == dir && m.name != hiddenAside {
			list = append(list, fuse.DirEntry{Name: m.name, Mode: m.mode, Ino: m.id})
		}
	}
	return list
}

// content is what a file holds that is made up, as it is now.
func (t *tree) content(id uint64) []byte {
	switch id {
	case identityNode:
		return t.virtual.identity
	case archiveNode:
		return t.virtual.archive
	case healthNode:
		return t.source.health.healthJSON(t.source.cache)
	case metricsNode:
		return t.source.health.metricsText(t.source.cache)
	}
	return nil
}

func (t *tree) virtualAttr(id uint64) fuse.Attr {
	mode := uint32(fileMode)
	switch id {
	case rootNode, walNode, backupNode, pitrNode, asideNode:
		mode = dirMode
	}
	return t.attr(id, uint64(len(t.content(id))), t.mounted.UnixNano(), mode)
}
