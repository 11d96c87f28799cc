package multicall

import (
	"errors"
	"fmt"

	"pitr/archive"
	"pitr/archive/wal"
)

// walVerifyCmd is `pitr wal verify`.
type walVerifyCmd struct {
	onlyFlag
	JSON bool `name:"json" help:"Print JSON."`
}

// statusUnsound is the status of a verification that found damage or gaps.
const statusUnsound = 6

type verified struct {
	Archive  string       `json:"archive"`
	Error    string       `json:"error,omitempty"` // it could not be looked at
	Files    int          `json:"files"`
	Segments int          `json:"segments"`
	RawBytes int64        `json:"raw_bytes"`
	Damaged  int          `json:"damaged"`
	Missing  int          `json:"missing_segments"`
	Unread   int          `json:"unread"`
	Findings []jsonDamage `json:"findings"`
}

type jsonDamage struct {
	Name  wal.Name `json:"name"`
	Error string   `json:"error"`
}

// Run reads everything and says what is wrong as soon as it is seen.
func (c *walVerifyCmd) Run(s *session) error {
	all := []verified{}
	err := c.each(s, func(a *archive.Archive) error {
		v := verified{Archive: a.Name(), Findings: []jsonDamage{}}
		p := newProgress(s, "verify "+a.Name(), "files")
		sum, err := a.Verify(s.ctx, func(f archive.Finding) {
			v.Findings = append(v.Findings, jsonDamage{f.Name, f.Err.Error()})
			if !c.JSON {
				p.end()
				fmt.Fprintf(s.stdout, "%s: %s: %v\n", a.Name(), f.Name, f.Err)
			}
		}, p.step)
		p.end()
		v.Files, v.Segments, v.RawBytes = sum.Files, sum.Segments, sum.RawBytes
		v.Damaged, v.Missing, v.Unread = sum.Damaged, sum.Missing, sum.Unread
		if err != nil {
			v.Error = err.Error()
		} else {
			err = v.verdict()
		}
		all = append(all, v)
		return err
	})
	if c.JSON {
		return errors.Join(err, printJSON(s.stdout, ofArchives[verified]{all}))
	}
	for _, v := range all {
		fmt.Fprintf(s.stdout, "%s: %s (%s, %s of WAL): %d damaged, %s missing, %d not readable\n",
			v.Archive, count(v.Files, "file"), count(v.Segments, "segment"), formatSize(v.RawBytes), v.Damaged, count(v.Missing, "segment"), v.Unread)
	}
	return err
}

func (v verified) verdict() error {
	switch {
	case v.Damaged > 0 || v.Missing > 0:
		return withStatus(fmt.Errorf("%s: not everything is sound", v.Archive), statusUnsound)
	case v.Unread > 0:
		return fmt.Errorf("%s: %d files could not be read", v.Archive, v.Unread)
	}
	return nil
}
