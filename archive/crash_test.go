package archive_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
)

// crashes are the ways to lose power: everything unsynced is lost, or anything.
func crashes(n int) map[string]*rand.Rand {
	return map[string]*rand.Rand{
		"all lost": nil, "some lost": rand.New(rand.NewPCG(uint64(n), 1)),
	}
}

// untilNoFault calls try with n = 1, 2, ... until the fault did not happen.
func untilNoFault(t *testing.T, try func(n int) (fired bool)) {
	t.Helper()
	step := 1
	if testing.Short() { // for the race detector: it is slow, and looks for something else
		step = 7
	}
	for n := 1; try(n); n += step {
		if n > 500 {
			t.Fatal("more than 500 operations")
		}
	}
}

// pushAll pushes until the first error and returns what was acknowledged.
func pushAll(t *testing.T, a *archive.Archive, all []file) []file {
	for i, f := range all {
		if _, err := a.Push(t.Context(), f.name, f.source()); err != nil {
			return all[:i]
		}
	}
	return all
}

// wantSound checks, after a crash, that everything acknowledged is there, that
// nothing half-written is visible, and that pushing again succeeds.
func wantSound(t *testing.T, fsys files.FS, acknowledged, all []file) {
	t.Helper()
	a := at(fsys, archive.Options{})
	for _, f := range acknowledged {
		wantFile(t, a, f)
	}
	entries, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pushed := map[string]file{}
	for _, f := range all {
		pushed[f.name.String()] = f
	}
	for _, e := range entries {
		wantFile(t, a, pushed[e.Name.String()])
	}
	push(t, a, all...)
	for _, f := range all {
		wantFile(t, a, f)
	}
}

func TestEverythingAcknowledgedSurvivesAnyFaultAndACrash(t *testing.T) {
	for where, place := range places {
		for _, form := range forms {
			for _, kind := range archivetest.Faults {
				t.Run(fmt.Sprint(where, form, kind), func(t *testing.T) {
					t.Parallel()
					untilNoFault(t, func(n int) bool { return pushAndCrash(t, place, form, kind, n) })
				})
			}
		}
	}
}

func pushAndCrash(t *testing.T, place func(files.FS) files.FS, form form, kind archivetest.Fault, n int) (fired bool) {
	t.Helper()
	all := append([]file{history(2, "1\t0/1100000\tno recovery target specified\n")}, segments(2, 0x11, 1, 1)...)
	for how, random := range crashes(n) {
		disk := archivetest.NewMemory()
		newArchive(t, disk, form, archive.Options{})
		faulty := archivetest.NewFaulty(disk, n, kind)
		acknowledged := pushAll(t, at(place(faulty), archive.Options{}), all)
		disk.Crash(random)
		wantSound(t, disk, acknowledged, all)
		if t.Failed() {
			t.Fatalf("operation %d, %s", n, how)
		}
		fired = faulty.Fired()
	}
	return fired
}

// The first pusher dies at operation n; the second one finds what is there and
// is told that it is safe; then the power fails.
func TestFoundCopySurvivesACrashBeforeItsWriterSyncedIt(t *testing.T) {
	all := segments(1, 0x11, 1, 1)
	for _, form := range forms {
		for _, kind := range []archivetest.Fault{archivetest.Killed, archivetest.KilledAfter} {
			t.Run(fmt.Sprint(form, kind), func(t *testing.T) {
				t.Parallel()
				untilNoFault(t, func(n int) bool {
					disk := archivetest.NewMemory()
					newArchive(t, disk, form, archive.Options{})
					faulty := archivetest.NewFaulty(disk, n, kind)
					pushAll(t, at(faulty, archive.Options{}), all)
					second := pushAll(t, at(disk, archive.Options{}), all)
					if len(second) != len(all) {
						t.Fatalf("operation %d: the second pusher stored %d of %d", n, len(second), len(all))
					}
					disk.Crash(nil)
					wantSound(t, disk, second, all)
					if t.Failed() {
						t.Fatalf("operation %d", n)
					}
					return faulty.Fired()
				})
			})
		}
	}
}

// Two pushers of one name at once, one of them failing at operation n: with
// other content (servers that promoted at the same point) at most one is told
// that its file is stored; with the same content both may be.
func TestOfTwoConcurrentPushersEachReadsBackWhatWasAcknowledged(t *testing.T) {
	ours := segments(2, 0x11, 1, 1)
	for what, theirs := range map[string][]file{"same content": ours, "other content": segments(2, 0x11, 1, 2)} {
		for where, place := range places {
			for _, form := range forms {
				for _, kind := range archivetest.Faults {
					t.Run(fmt.Sprint(what, where, form, kind), func(t *testing.T) {
						t.Parallel()
						untilNoFault(t, func(n int) bool { return pushBoth(t, place, form, kind, n, ours, theirs) })
					})
				}
			}
		}
	}
}

func pushBoth(t *testing.T, place func(files.FS) files.FS, form form, kind archivetest.Fault, n int, ours, theirs []file) (fired bool) {
	t.Helper()
	disk := archivetest.NewMemory()
	newArchive(t, disk, form, archive.Options{})
	faulty := archivetest.NewFaulty(disk, n, kind)
	var mine, other []file
	var wg sync.WaitGroup
	wg.Go(func() { mine = pushAll(t, at(place(faulty), archive.Options{}), ours) })
	wg.Go(func() { other = pushAll(t, at(place(disk), archive.Options{}), theirs) })
	wg.Wait()
	disk.Crash(nil)
	same := bytes.Equal(ours[0].content, theirs[0].content)
	if !same && len(mine) > 0 && len(other) > 0 {
		t.Fatalf("operation %d: both were told that their file is stored", n)
	}
	if stored := len(mine) + len(other); !faulty.Fired() && (same && stored != 2 || stored == 0) {
		t.Errorf("nothing failed, and %d of two were told that their file is stored", stored)
	}
	for _, f := range slices.Concat(mine, other) {
		wantFile(t, at(disk, archive.Options{}), f)
	}
	got, err := fetch(t.Context(), at(disk, archive.Options{}), ours[0].name)
	if err == nil && !bytes.Equal(got, ours[0].content) && !bytes.Equal(got, theirs[0].content) {
		t.Errorf("operation %d: a mixture is visible", n)
	}
	return faulty.Fired()
}

func TestInitSurvivesAnyFaultAndACrash(t *testing.T) {
	for _, form := range forms {
		for _, kind := range archivetest.Faults {
			t.Run(fmt.Sprint(form, kind), func(t *testing.T) {
				t.Parallel()
				untilNoFault(t, func(n int) bool {
					disk := archivetest.NewMemory()
					faulty := archivetest.NewFaulty(disk, n, kind)
					made, err := archive.Init(t.Context(), store(faulty), identity(form))
					disk.Crash(nil)
					again, errAgain := archive.Init(t.Context(), store(disk), identity(form))
					if err == nil {
						again, errAgain = at(disk, archive.Options{}).Identity(t.Context())
						if errAgain != nil || again.ID != made.ID {
							t.Errorf("operation %d: made %s, found %s, error %v", n, made.ID, again.ID, errAgain)
						}
					} else if errAgain != nil {
						if _, err := at(disk, archive.Options{}).Identity(t.Context()); err != nil {
							t.Errorf("operation %d: cannot be finished: %v", n, errAgain)
						}
					}
					push(t, at(disk, archive.Options{}), segments(1, 1, 1, 1)...)
					return faulty.Fired()
				})
			})
		}
	}
}
