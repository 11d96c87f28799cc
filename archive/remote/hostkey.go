package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"pitr/archive"
)

// hostKeys are the keys to believe.
type hostKeys struct {
	db     *knownhosts.HostKeyDB
	policy HostKeyPolicy
	files  []string // where they may be; the first one gets new keys
	log    *slog.Logger
}

// knownHosts reads the files that are there.
func (o Options) knownHosts(h hop) (*hostKeys, error) {
	k := &hostKeys{policy: o.HostKeyPolicy, files: h.knownHosts, log: o.Log}
	if len(k.files) == 0 {
		return nil, archive.WithHint(fmt.Errorf("%w: there is no file that could hold it", ErrHostKey), "set known_hosts to an absolute path: the home directory of this user is not known")
	}
	var usable []string
	for _, path := range h.knownHosts {
		text, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
		}
		clean, err := k.withoutBadLines(path, text)
		if err != nil {
			return nil, err
		}
		if clean == nil {
			usable = append(usable, path)
			continue
		}
		temp, err := writeTemp(clean)
		if err != nil {
			return nil, err
		}
		defer os.Remove(temp)
		usable = append(usable, temp)
	}
	var err error
	if k.db, err = knownhosts.NewDB(usable...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHostKey, err)
	}
	return k, nil
}

// withoutBadLines is the text without the lines that cannot be understood, or
// nil if there are none: ssh passes over them, and the library would over the
// whole file. A revocation is not passed over.
func (k *hostKeys) withoutBadLines(path string, text []byte) ([]byte, error) {
	var clean []byte
	bad := false
	for i, line := range bytes.SplitAfter(text, []byte("\n")) {
		trimmed := bytes.TrimSpace(line)
		if len(trimmed) > 0 && trimmed[0] != '#' {
			if _, _, _, _, _, err := ssh.ParseKnownHosts(trimmed); err != nil && !errors.Is(err, io.EOF) {
				if bytes.HasPrefix(trimmed, []byte("@revoked")) {
					return nil, archive.WithHint(fmt.Errorf("%w: %s line %d: %w", ErrHostKey, path, i+1, err), "it revokes a key, and cannot be understood: mend the line")
				}
				k.log.Warn("known_hosts: this line is not understood, and left out", "file", path, "line", i+1, "error", err)
				bad = true
				continue
			}
		}
		clean = append(clean, line...)
	}
	if !bad {
		return nil, nil
	}
	return append(clean, '\n'), nil
}

// writeTemp is for the library, which reads files only.
func writeTemp(text []byte) (string, error) {
	f, err := os.CreateTemp("", "pitr-known-hosts-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// algorithms are the kinds of keys that are known of a host, so that it shows
// one of them. Of an unknown host, all that are secure.
func (k *hostKeys) algorithms(address string) []string {
	if known := k.db.HostKeyAlgorithms(address); len(known) > 0 {
		return known
	}
	// Short keys first: they are quick to verify.
	all := slices.Clone(ssh.SupportedAlgorithms().HostKeys)
	return first(all, ssh.KeyAlgoED25519)
}

// check believes a host's key, or says why not.
func (k *hostKeys) check(name string, at net.Addr, key ssh.PublicKey) error {
	err := k.db.HostKeyCallback()(name, at, key)
	print := ssh.FingerprintSHA256(key)
	host, port, _ := strings.Cut(knownhosts.Normalize(name), "]:")
	host = strings.TrimPrefix(host, "[")
	switch {
	case err == nil:
		return nil
	case knownhosts.IsHostKeyChanged(err):
		return archive.WithHint(fmt.Errorf("%w: %s shows another key than the one that is known: %s %s", ErrHostKey, name, key.Type(), print),
			"was the host set up anew, or does somebody stand between? If it is right: ssh-keygen -R '%s' -f %s, then add the new key", knownhosts.Normalize(name), k.files[0])
	case knownhosts.IsHostUnknown(err) && k.policy == AcceptNew:
		return k.note(name, at, key)
	case knownhosts.IsHostUnknown(err):
		if port != "" {
			port = "-p " + port + " "
		}
		return archive.WithHint(fmt.Errorf("%w: that of %s is not known: %s %s", ErrHostKey, name, key.Type(), print),
			"compare it with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), then: ssh-keyscan %s%s >> %s; or set host_key_policy = accept-new", port, host, k.files[0])
	}
	return fmt.Errorf("%w: %w", ErrHostKey, err)
}

// note writes a new host's key down. If that cannot be done it is not believed:
// the next key would be believed as well.
func (k *hostKeys) note(name string, at net.Addr, key ssh.PublicKey) error {
	path := k.files[0]
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: it cannot be noted: %w", ErrHostKey, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("%w: it cannot be noted: %w", ErrHostKey, err)
	}
	// One write, for others may be at it; a line feed first, for the last line
	// may have none.
	var line bytes.Buffer
	line.WriteByte('\n')
	err = knownhosts.WriteKnownHost(&line, name, at, key)
	if err == nil {
		_, err = f.Write(line.Bytes())
	}
	if syncErr := f.Sync(); !errors.Is(syncErr, syscall.EINVAL) { // /dev/null, for whoever wants that
		err = errors.Join(err, syncErr)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w: it cannot be noted: %w", ErrHostKey, err)
	}
	k.log.Warn("the key of a new host is believed from now on, as host_key_policy says", "host", name, "key", ssh.FingerprintSHA256(key), "file", path)
	return nil
}
