package multicall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

type installCmd struct {
	Dir   string `arg:"" help:"Directory for the links."`
	Hard  bool   `help:"Make hard links instead of symbolic ones."`
	Force bool   `help:"Replace other files of these names."`
}

// Run links every name of the table to this binary. Running it again changes
// nothing.
func (i installCmd) Run(c *call) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	if info, err := os.Stat(i.Dir); err != nil || !info.IsDir() {
		return hint(fmt.Errorf("%s is not a directory", i.Dir), "mkdir -p %s", i.Dir)
	}
	// First look, then touch: half of the names would be worse than none.
	var errs []error
	for _, name := range appletNames() {
		errs = append(errs, i.mustBeFree(binary, filepath.Join(i.Dir, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, name := range appletNames() {
		path := filepath.Join(i.Dir, name)
		done, err := i.link(binary, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%s: %s\n", path, done)
	}
	return nil
}

// mustBeFree tells what keeps a name from being linked.
func (i installCmd) mustBeFree(binary, path string) error {
	there, err := i.present(binary, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil || there || i.Force || leadsTo(path, binary):
		return err
	}
	return hint(fmt.Errorf("%s is another file", path), "--force replaces it.")
}

// link makes one link, and says what it did.
func (i installCmd) link(binary, path string) (string, error) {
	if there, err := i.present(binary, path); err == nil && there {
		return "is there", nil
	}
	if err := i.place(binary, path); err != nil {
		return "", err
	}
	if i.Hard {
		return "linked", nil
	}
	return "-> " + binary, nil
}

// present tells whether path is as good as the link that is wanted: the binary
// itself, a hard link to it, or a symbolic one if that is what was asked for,
// however it is written. fs.ErrNotExist: nothing is there.
func (i installCmd) present(binary, path string) (bool, error) {
	have, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	return leadsTo(path, binary) && (!i.Hard || have.Mode()&fs.ModeSymlink == 0), nil
}

// leadsTo tells whether path is the binary, or a link to it.
func leadsTo(path, binary string) bool {
	have, err := os.Stat(path)
	if err != nil {
		return false
	}
	want, err := os.Stat(binary)
	return err == nil && os.SameFile(have, want)
}

// place puts the link beside its name first: what --force replaces is never
// missing, not even for a moment.
func (i installCmd) place(binary, path string) error {
	link := os.Symlink
	if i.Hard {
		link = os.Link
	}
	temporary := fmt.Sprintf("%s.tmp-%d", path, os.Getpid())
	err := link(binary, temporary)
	if errors.Is(err, syscall.EXDEV) {
		return hint(err, "a hard link stays on one file system; leave out --hard.")
	}
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}
