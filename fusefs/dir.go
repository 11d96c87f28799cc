package fusefs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// openDir is a directory being listed: first some names that are made up, then
// those of archives. The offset of an entry is its number, counted from 1.
type openDir struct {
	made  []fuse.DirEntry
	files []listed
}

// OpenDir lists a directory once, for as long as it is open.
func (t *tree) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d := &openDir{made: t.virtual.entries(in.NodeId)}
	switch in.NodeId {
	case walNode:
		l, errno := t.source.names(cancel)
		if errno != 0 {
			return fuse.Status(errno)
		}
		d.files = l.files
	case asideNode:
		all, errno := t.source.setAside(cancel)
		if errno != 0 {
			return fuse.Status(errno)
		}
		for _, a := range all {
			d.made = append(d.made, fuse.DirEntry{Name: a.Base, Mode: fileMode, Ino: emptyNode})
		}
	}
	out.Fh = t.handles.add(&handle{dir: d})
	return fuse.OK
}

// ReadDir gives the next names.
func (t *tree) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	for at := in.Offset; at < h.dir.len(); at++ {
		if !out.AddDirEntry(h.dir.entry(at)) {
			break
		}
	}
	return fuse.OK
}

// ReadDirPlus gives the next names, and what the listing tells of the files. Of others
// the kernel asks when it wants to know.
func (t *tree) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	h := t.handles.get(in.Fh)
	if h == nil || h.dir == nil {
		return fuse.EBADF
	}
	for at := in.Offset; at < h.dir.len(); at++ {
		e := out.AddDirLookupEntry(h.dir.entry(at))
		if e == nil {
			break
		}
		if f, ok := h.dir.file(at); ok && f.size != unseen && t.settled(f.name, f.size) {
			t.enter(f.name, f.sight, e)
		}
	}
	return fuse.OK
}

func (d *openDir) len() uint64 { return uint64(len(d.made) + len(d.files)) }

// file returns the file at a place; false if it is one that is made up.
func (d *openDir) file(at uint64) (listed, bool) {
	if at < uint64(len(d.made)) {
		return listed{}, false
	}
	return d.files[at-uint64(len(d.made))], true
}

func (d *openDir) entry(at uint64) fuse.DirEntry {
	f, ok := d.file(at)
	if !ok {
		e := d.made[at]
		e.Off = at + 1
		return e
	}
	name := f.name.String()
	return fuse.DirEntry{Name: name, Mode: fileMode, Ino: inodeOf(name), Off: at + 1}
}

// ReleaseDir closes a directory.
func (t *tree) ReleaseDir(in *fuse.ReleaseIn) { t.handles.remove(in.Fh) }
