package fusefs

import (
	"encoding/binary"
	"hash/fnv"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// stamp tells a stored file from any other that lay, or will lie, under its name, by
// its archive, size and time.
type stamp uint64

func stampOf(f archive.Found) stamp {
	h := fnv.New64a()
	_, _ = h.Write([]byte(f.Archive))
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], uint64(f.Size))
	binary.LittleEndian.PutUint64(b[8:], uint64(f.Stored))
	binary.LittleEndian.PutUint64(b[16:], uint64(f.ModTime.UnixNano()))
	_, _ = h.Write(b[:])
	return stamp(h.Sum64())
}

// sight is what was seen under a name. It is small: there may be very many.
type sight struct {
	size  int64
	mtime int64 // in nanoseconds
	stamp stamp
}

func sightOf(f archive.Found) sight { return sight{f.Size, f.ModTime.UnixNano(), stampOf(f)} }

// storedFile is one file of the archives, and none that takes its place.
type storedFile struct {
	name  wal.Name
	stamp stamp
}

// fresh is how long a sight is as good as a new one, once: who opens a file has just
// looked for its name, and what was read ahead was looked for then.
const fresh = time.Second

// sights are those of a moment ago.
type sights struct {
	mu   sync.Mutex // guards last
	last map[wal.Name]lately
}

type lately struct {
	sight
	at    time.Time
	ahead bool // nobody has asked for it yet
}

func (s *sights) put(name wal.Name, l lately) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) > 500 || s.last == nil {
		s.last = map[wal.Name]lately{}
	}
	s.last[name] = l
}

// use returns a sight that nobody has used yet, and after that nobody will.
func (s *sights) use(name wal.Name) (sight, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.last[name]
	delete(s.last, name)
	return l.sight, ok && time.Since(l.at) < fresh
}

// ahead returns that of a file which was read ahead. Who opens it next may use it, too.
func (s *sights) ahead(name wal.Name) (sight, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.last[name]
	if !ok || !l.ahead || time.Since(l.at) >= fresh {
		return sight{}, false
	}
	l.ahead = false
	s.last[name] = l
	return l.sight, true
}
