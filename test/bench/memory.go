package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// memory is what an agent needs for segments of the largest size that there is,
// full of what cannot be compressed. It has one contender, and one round.
func (b *bench) memory() *task {
	t := &task{name: "memory: three segments of 1 GB"}
	data := b.path("large", "d")
	var server *postmaster
	var f *far
	t.setUp = func(c choice) (err error) {
		if !c.rivals.MatchString(ours) {
			return nil
		}
		s := find(ours)
		if err := b.makeLarge(data); err != nil {
			return fmt.Errorf("make WAL: %w", err)
		}
		if server, err = b.startServerOn(data); err != nil {
			return err
		}
		large := *b
		large.own = data
		if f, err = large.openFar(way{name: s.name, setUp: s.setUp}, 0); err != nil {
			return err
		}
		b.fars = large.fars
		segments, err := filepath.Glob(filepath.Join(data, "pg_wal", "00000001*"))
		if err != nil || len(segments) < 3 {
			return errors.Join(err, fmt.Errorf("%d segments", len(segments)))
		}
		k := large.ships(s, f, segments[:3])
		ship := k.run
		k.run = func(m measurer, round int) (sample, error) {
			if round > 0 {
				return k.samples[0], nil
			}
			return ship(m, round)
		}
		check, before := k.check, k.before
		k.check = func(round int) error { return once(round, check) }
		k.before = func(round int) error { return once(round, before) }
		t.contenders = []*contender{k}
		return nil
	}
	t.tearDown = func() (err error) {
		if f != nil {
			err = errors.Join(f.endAgent(), f.close())
		}
		if server != nil {
			err = errors.Join(err, server.stop())
		}
		return errors.Join(err, os.RemoveAll(b.path("large")))
	}
	t.report = func() {
		s := t.contenders[0].samples[0]
		fmt.Printf("\n| %s | s | CPU s here + there | agent's peak MB | peak MB, largest process |\n| --- | --- | --- | --- | --- |\n", t.name)
		fmt.Printf("| %s | %.1f | %.1f + %.1f | %.0f | %.0f |\n", t.contenders[0].name, s.Wall.Seconds(), s.CPU.Seconds(), s.There.Seconds(), float64(s.Agent)/1024, float64(s.Peak)/1024)
	}
	return t
}

func once(round int, do func(int) error) error {
	if round > 0 {
		return nil
	}
	return do(round)
}

// makeLarge makes a cluster with three segments of 1 GB.
func (b *bench) makeLarge(data string) error {
	if err := b.directory(filepath.Dir(data)); err != nil {
		return err
	}
	script := fmt.Sprintf(`set -e
cd %[1]s
%[2]s/initdb -D d -A trust -U postgres --wal-segsize=1024 >/dev/null
cat >>d/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$PWD'
archive_mode = on
archive_command = 'false'
min_wal_size = 2GB
max_wal_size = 16GB
wal_keep_size = 16GB
checkpoint_timeout = 1h
fsync = off
autovacuum = off
END
%[2]s/pg_ctl -D d -l log -w start >/dev/null
trap '%[2]s/pg_ctl -D d -m fast stop >/dev/null' EXIT
%[2]s/psql -h $PWD -U postgres -Xq postgres <<END
CREATE TABLE noise (pad text);
ALTER TABLE noise ALTER pad SET STORAGE EXTERNAL;
END
for i in 1 2 3; do
  %[2]s/psql -h $PWD -U postgres -Xq postgres <<END >/dev/null
INSERT INTO noise SELECT (SELECT string_agg(md5(i::text || '/' || j || '/$i'), '') FROM generate_series(1, 60) j) FROM generate_series(1, 450000) i;
SELECT pg_switch_wal();
END
done
`, filepath.Dir(data), b.server)
	return silent(b.command(nil, "sh", "-c", script))
}
