// Package sshd runs OpenSSH's own sshd, for tests and for the bench: as an
// ordinary user, on a loopback address of its own, with keys of its own. What is
// not named here is as OpenSSH has it by default.
//
// There are no passwords and no PAM. StrictModes is off because the keys lie
// under /tmp, which everybody may write to.
package sshd
